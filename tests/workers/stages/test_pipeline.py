"""A whole job in one process: real stages on a small network, resumed where it was lost."""

import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.contract.report import Report
from app.contract.spec import JobSpec
from app.contract.status import Stage
from tests.workers.engine.networks import Attention, sequence_network, write_example
from workers.engine.errors import EngineError
from workers.engine.formats import onnx, pt2
from workers.engine.formats.imported import Imported
from workers.engine.formats.onnx_in.check import Answer, check
from workers.engine.layers.find import find
from workers.engine.measure import cost
from workers.messages import Advanced, Kind, Message, Noticed, Order, StageFinished, StageStarted, Succeeded
from workers.stages import inspect, pipeline
from workers.stages.context import read_model
from workers.stages.inspect import describe

MODEL = "mdl_" + "0" * 32


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, trained on nothing, and rows labelled by itself."""
    folder = tmp_path_factory.mktemp("inputs")
    write_example(folder, {"train": 200, "test": 60})
    for name in ("model.pt2", "train.npz", "test.npz"):
        (folder / name).rename(folder / Path(name).stem)  # as a workspace names them
    return folder


def run(
    inputs: Path,
    workspace: Path,
    roles: tuple[str, ...] = ("train", "test"),
    done: Any = (),
    stored_as: str = "pt2",
    **spec: Any,
) -> list[Message]:
    """Run a job; the messages it sent."""
    shutil.copytree(inputs, workspace / "inputs", dirs_exist_ok=True)
    wanted: dict[str, Any] = {"finetune": {"epochs": 1, "batch_size": 32}, "device": "cpu", **spec}
    order = Order(
        job_id="job_" + "0" * 32,
        kind="compress",
        attempt=1,
        spec=JobSpec(model=MODEL, **wanted),
        formats={"model": stored_as, **dict.fromkeys(roles, "npz")},
        done=list(done),
    )
    messages: list[Message] = []
    pipeline.run(order, workspace, messages.append)
    return messages


def report_of(workspace: Path) -> Report:
    return Report.model_validate_json((workspace / "result.json").read_bytes())


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Message]]:
    """One whole job at keep 0.6."""
    workspace = tmp_path_factory.mktemp("finished")
    return workspace, run(inputs, workspace, task="classification", target={"keep": 0.6})


def test_every_stage_reports_its_start_and_end_and_progress_never_falls(
    finished: tuple[Path, list[Message]],
) -> None:
    messages = finished[1]
    stages = [(type(m), m.stage) for m in messages if isinstance(m, StageStarted | StageFinished)]
    assert stages == [(kind, stage) for stage in Stage for kind in (StageStarted, StageFinished)]
    fractions = [m.fraction for m in messages if isinstance(m, Advanced)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert isinstance(messages[-1], Succeeded)


def test_the_report_agrees_with_an_independent_look_at_the_artifacts(
    finished: tuple[Path, list[Message]], inputs: Path
) -> None:
    workspace = finished[0]
    report = report_of(workspace)
    [candidate] = report.candidates
    program = torch.export.load(workspace / "artifacts" / "candidate-0.pt2")
    assert candidate.parameters == sum(p.numel() for p in program.state_dict.values() if p.requires_grad)
    counted = cost.count(pt2.read(workspace / "artifacts" / "candidate-0.pt2"))
    assert (candidate.macs, candidate.parameters) == (counted.macs, counted.parameters)
    assert candidate.macs <= 0.6 * report.original.macs
    test = np.load(inputs / "test")
    hits = program.module()(torch.from_numpy(test["x"])).argmax(-1).numpy() == test["target"]
    assert candidate.metric is not None
    assert candidate.metric.value == pytest.approx(hits.mean())
    assert candidate.bytes["onnx"] == (workspace / "artifacts" / "candidate-0.onnx").stat().st_size


def test_the_report_has_the_control_the_curve_the_splits_and_every_stages_seconds(
    finished: tuple[Path, list[Message]],
) -> None:
    report = report_of(finished[0])
    assert report.control is not None
    assert report.control.metric.n == 60
    assert [point.step for point in report.candidates[0].finetune if point.metric is not None] == [0, 5]
    assert report.splits == {"fit": 160, "calibration": 20, "selection": 20, "test": 60}
    assert set(report.seconds) == {stage.value for stage in Stage}
    assert report.original.metric is not None
    assert report.original.metric.value == 1.0
    assert set(report.original.latency) == {"torch", "onnxruntime"}


def test_notices_say_which_layers_stay_dense(finished: tuple[Path, list[Message]]) -> None:
    said = [m.notice for m in finished[1] if isinstance(m, Noticed)]
    dense = {layer.name for layer in report_of(finished[0]).candidates[0].layers if layer.method == "keep"}
    assert {notice.layer for notice in said if notice.code == "kept_dense"} == dense


def test_a_job_resumes_after_its_last_finished_stage(
    finished: tuple[Path, list[Message]], inputs: Path, tmp_path: Path
) -> None:
    kept = [Stage.INSPECT, Stage.PLAN, Stage.DECOMPOSE, Stage.FINETUNE]
    for stage in kept:
        shutil.copytree(finished[0] / "stages" / stage, tmp_path / "stages" / stage)
    messages = run(inputs, tmp_path, done=kept, task="classification", target={"keep": 0.6})
    started = [m.stage for m in messages if isinstance(m, StageStarted)]
    assert started == [Stage.MEASURE, Stage.PACKAGE]
    ours, theirs = report_of(tmp_path), report_of(finished[0])
    assert ours.candidates[0].metric == theirs.candidates[0].metric
    assert ours.warnings == theirs.warnings
    artifacts = [(w / "artifacts" / "candidate-0.pt2").read_bytes() for w in (tmp_path, finished[0])]
    assert artifacts[0] == artifacts[1]


def test_without_data_the_report_has_fidelity_and_no_metric(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path, roles=(), outputs=["pt2"])
    report = report_of(tmp_path)
    [candidate] = report.candidates
    assert (candidate.metric, report.control, report.original.metric) == (None, None, None)
    assert 0 < candidate.fidelity.relative_error < 1
    assert candidate.macs <= 0.5 * report.original.macs
    assert [path.name for path in sorted((tmp_path / "artifacts").iterdir())] == [
        "candidate-0.pt2",
        "report.json",
    ]


def test_a_list_of_budgets_gives_a_candidate_each(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path, roles=(), target={"of": "parameters", "keep": [0.8, 0.5]})
    report = report_of(tmp_path)
    assert [candidate.keep for candidate in report.candidates] == [0.8, 0.5]
    assert all(c.parameters <= c.keep * report.original.parameters for c in report.candidates)
    assert report.candidates[1].parameters < report.candidates[0].parameters


def test_a_budget_of_everything_is_not_worth_it_and_says_so(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path, roles=(), target={"keep": 1.0}, outputs=["pt2"])
    [candidate] = report_of(tmp_path).candidates
    assert candidate.verdict == "not_worth_it"
    assert candidate.fidelity.relative_error == pytest.approx(0.0, abs=1e-6)


def test_an_unreachable_budget_names_the_field_and_the_least(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as raised:
        run(inputs, tmp_path, roles=(), target={"keep": 0.001})
    assert (raised.value.code, raised.value.field) == ("budget_unreachable", "target.keep")


def _inspection(
    kind: Kind,
    upload: Path,
    stored_as: str,
    workspace: Path,
    emit: Callable[[Message], None] = lambda _: None,
) -> Any:
    (workspace / "inputs").mkdir()
    shutil.copy(upload, workspace / "inputs" / "upload")
    order = Order(job_id="job_1", kind=kind, attempt=1, formats={"upload": stored_as})
    pipeline.run(order, workspace, emit)
    return json.loads((workspace / "result.json").read_text())


def test_a_model_is_described(inputs: Path, tmp_path: Path) -> None:
    summary = _inspection("inspect_model", inputs / "model", "pt2", tmp_path)
    assert summary["inputs"][0]["name"] == "x"
    assert summary["inputs"][0]["shape"][1:] == [3, 8, 8]
    assert isinstance(summary["inputs"][0]["shape"][0], str)
    assert summary["outputs"][0]["shape"][1:] == [4]
    kernel = ["tucker", "channel_svd", "channel_svd_in", "spatial_svd", "cp", "full_tucker"]
    assert [layer["methods"] for layer in summary["layers"]] == [
        kernel,
        kernel,
        ["svd"],
        ["svd", "tensor_train"],
    ]
    ranks = summary["layers"][1]["max_rank"]
    assert (ranks["tucker"], ranks["full_tucker"], ranks["spatial_svd"]) == ([32, 32], [32, 32, 3, 3], [96])
    assert [menu["layer"] for menu in summary["menus"]] == [layer["name"] for layer in summary["layers"]]
    assert set(summary["menus"][1]["offers"]) == {*kernel} - {"cp", "full_tucker"}


@pytest.mark.parametrize("quick", [0, 1 << 40])
def test_a_model_whose_menus_take_long_is_described_before_they_are_there(
    quick: int, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "_QUICK", quick)
    said: list[tuple[str, bool]] = []

    def emit(message: Message) -> None:
        found = json.loads((tmp_path / "result.json").read_text())
        said.append((message.type, found["menus"] is not None))

    summary = _inspection("inspect_model", inputs / "model", "pt2", tmp_path, emit)
    assert said == [*([] if quick else [("described", False)]), ("succeeded", True)]
    assert summary["menus"]


def test_a_very_large_model_is_described_without_menus(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "_MOST_PARAMETERS", 100)
    summary = _inspection("inspect_model", inputs / "model", "pt2", tmp_path)
    assert summary["layers"]
    assert summary["menus"] is None


def test_pairs_are_described_beside_their_members() -> None:
    network = sequence_network(Attention(24, 3), 24)
    summary = describe(network, find(network))
    assert [layer.name for layer in summary.layers] == ["q", "k", "v", "o"]
    assert [(pair.name, pair.members) for pair in summary.pairs] == [("q+k", ("q", "k")), ("v+o", ("v", "o"))]
    assert all(pair.max_rank == {"joint_svd": [8]} for pair in summary.pairs)


@pytest.fixture(scope="module")
def onnx_inputs(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network and rows, the network as an ONNX file."""
    folder = tmp_path_factory.mktemp("onnx") / "inputs"
    shutil.copytree(inputs, folder)
    onnx.write(pt2.read(inputs / "model"), folder / "model")
    return folder


def test_an_onnx_file_is_described_as_the_network_it_was_made_of(
    inputs: Path, onnx_inputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "pt2").mkdir()
    found = _inspection("inspect_model", onnx_inputs / "model", "onnx", tmp_path / "onnx")
    known = _inspection("inspect_model", inputs / "model", "pt2", tmp_path / "pt2")
    assert [(layer["kind"], layer["shape"]) for layer in found["layers"]] == [
        (layer["kind"], layer["shape"]) for layer in known["layers"]
    ]
    assert found["macs"] == known["macs"]
    assert (found["inputs"][0]["name"], found["inputs"][0]["shape"][1:]) == ("x", [3, 8, 8])


def test_a_large_onnx_network_is_let_go_while_onnx_runtime_holds_it(
    onnx_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def reading(path: Path, stored_as: str) -> Imported:
        imported = read_model(path, stored_as)
        held.append(weakref.ref(imported.network.module))
        return imported

    def comparing(path: Path, told: list[Answer]) -> None:
        alive.extend(each() is not None for each in held)
        check(path, told)

    monkeypatch.setattr(inspect, "read_model", reading)
    monkeypatch.setattr(inspect, "check", comparing)
    summaries = []
    for quick in (1 << 40, 0):
        monkeypatch.setattr(inspect, "_QUICK", quick)
        held.clear()
        summaries.append(inspect.model(onnx_inputs / "model", "onnx"))
    assert alive == [True, False]
    assert summaries[0] == summaries[1]
    assert summaries[0].menus


def test_a_job_on_an_onnx_file_makes_both_artifacts(onnx_inputs: Path, tmp_path: Path) -> None:
    run(onnx_inputs, tmp_path, stored_as="onnx", target={"keep": 0.5})
    [candidate] = report_of(tmp_path).candidates
    assert candidate.parameters < report_of(tmp_path).original.parameters
    made = {path.name for path in (tmp_path / "artifacts").iterdir()}
    assert {"candidate-0.pt2", "candidate-0.onnx"} < made


def test_a_data_set_is_described(inputs: Path, tmp_path: Path) -> None:
    summary = _inspection("inspect_dataset", inputs / "test", "npz", tmp_path)
    assert summary["rows"] == 60
    target = next(array for array in summary["arrays"] if array["name"] == "target")
    assert target["dtype"] == "int64"
    assert 0 <= target["minimum"] <= target["maximum"] < 4
