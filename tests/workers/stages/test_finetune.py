"""The fine-tuning stage: gone on with where an attempt was lost, and ended by what selection rows say."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.contract.problem import Notice
from app.contract.report import Metric
from app.contract.spec import JobSpec
from app.contract.status import Stage
from tests.workers.engine.networks import seeded, vector_network, write_example
from tests.workers.stages.jobs import run_job
from workers.engine.decay import energy, products
from workers.engine.formats import pt2
from workers.engine.graph.network import Network
from workers.messages import Advanced, Message, Noticed, Order
from workers.stages import finetune, judge, pipeline, refine
from workers.stages.calibration import candidate_judge
from workers.stages.context import Context
from workers.stages.decompose import decomposed

EPOCHS = 3
_BEFORE = [Stage.INSPECT, Stage.PLAN, Stage.DECOMPOSE]


class _LostError(Exception):
    """The attempt ends here."""


@pytest.fixture(scope="module")
def decomposition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with everything before fine-tuning."""
    folder = tmp_path_factory.mktemp("job")
    write_example(folder, {"train": 120, "test": 40})
    (folder / "inputs").mkdir()
    for name in ("model.pt2", "train.npz", "test.npz"):
        (folder / name).rename(folder / "inputs" / Path(name).stem)
    context = Context(_order(), folder, lambda _: None)
    for stage in _BEFORE:
        context.start(stage)
        pipeline._STAGES[stage](context)
        context.finish(stage)
    assert len(decomposed(context)) == 2
    return folder


def _order(**changed: Any) -> Order:
    spec = {
        "model": "mdl_" + "0" * 32,
        "task": "classification",
        "device": "cpu",
        "target": {"keep": [0.8, 0.5]},
        "finetune": {"epochs": EPOCHS, "batch_size": 32, **changed},
    }
    return Order(
        job_id="job_" + "0" * 32,
        kind="compress",
        attempt=1,
        spec=JobSpec.model_validate(spec),
        formats={"model": "pt2", "train": "npz", "test": "npz"},
        done=_BEFORE,
    )


def _copied(decomposition: Path, workspace: Path) -> Path:
    shutil.copytree(decomposition, workspace, dirs_exist_ok=True)
    return workspace


def _left(decomposition: Path, workspace: Path, files: dict[str, bytes]) -> Path:
    """The same, with what an earlier attempt left of fine-tuning."""
    folder = _copied(decomposition, workspace) / "stages" / "finetune"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return workspace


def _run(workspace: Path, emit: Callable[[Message], None] = lambda _: None, **changed: Any) -> Context:
    context = Context(_order(**changed), workspace, emit)
    context.start(Stage.FINETUNE)
    finetune.run(context)
    return context


def _lost_at(advances: int) -> Callable[[Message], None]:
    """Listens until that many steps were done, and then no more."""
    heard: list[Message] = []

    def emit(message: Message) -> None:
        heard.append(message)
        if sum(isinstance(each, Advanced) for each in heard) == advances:
            raise _LostError

    return emit


def _files(workspace: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workspace / "stages" / "finetune").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(decomposition: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the stage leaves: networks, curves, and nothing of a checkpoint."""
    workspace = _copied(decomposition, tmp_path_factory.mktemp("undisturbed"))
    _run(workspace)
    files = _files(workspace)
    names = ("candidate-0", "candidate-1", "control")
    made = {f"{name}.{suffix}" for name in names for suffix in ("pt2", "json", "done")}
    assert set(files) - {"notices.jsonl"} == made
    return files


def test_a_lost_attempt_is_gone_on_with_and_ends_with_the_same_files(
    decomposition: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    workspace = _copied(decomposition, tmp_path)
    steps = 3 * EPOCHS  # of each of the three networks
    with pytest.raises(_LostError):
        _run(workspace, _lost_at(steps + 4))
    assert "candidate-1.checkpoint" in _files(workspace)
    heard: list[Message] = []
    _run(workspace, heard.append)
    assert sum(isinstance(message, Advanced) for message in heard) == 2 * steps - 3
    assert _files(workspace) == undisturbed


def test_finished_networks_are_not_trained_again_but_told_of_again(
    decomposition: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    workspace = _left(decomposition, tmp_path, undisturbed)
    heard: list[Message] = []
    _run(workspace, heard.append)
    assert not any(isinstance(message, Advanced) for message in heard)
    assert _files(workspace) == undisturbed


@pytest.mark.parametrize("name", ["candidate-0.pt2", "candidate-0.done", "candidate-0.json"])
def test_a_damaged_network_is_trained_again(
    decomposition: Path, undisturbed: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    workspace = _left(decomposition, tmp_path, undisturbed | {name: undisturbed[name][:-9]})
    heard: list[Message] = []
    _run(workspace, heard.append)
    assert sum(isinstance(message, Advanced) for message in heard) == 3 * EPOCHS
    assert _files(workspace) == undisturbed


def test_what_another_job_left_is_not_trusted(
    decomposition: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    workspace = _copied(decomposition, tmp_path)
    with pytest.raises(_LostError):
        _run(workspace, _lost_at(3 * EPOCHS + 4), learning_rate=1e-4)
    (workspace / "stages" / "finetune" / "candidate-7.pt2").write_bytes(b"of a job with more candidates")
    _run(workspace)
    assert _files(workspace) == undisturbed


def test_nothing_is_trained_without_epochs_whatever_was_left(
    decomposition: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    name = "candidate-0.pt2"
    workspace = _left(decomposition, tmp_path, {name: undisturbed[name]})
    context = _run(workspace, epochs=0)
    assert finetune.trained(context, "candidate-0") is None


def _said_of_training(heard: Sequence[Message]) -> list[Notice]:
    said = [message.notice for message in heard if isinstance(message, Noticed)]
    return [notice for notice in said if notice.code != "kept_dense"]


def _with_metrics(patch: pytest.MonkeyPatch, name: str, *values: float) -> None:
    """Let the selection rows say that, in turn, of every network."""
    told = iter(values * 3)

    def metric(*_: Any) -> Metric:
        value = next(told)
        return Metric(name=name, value=value, n=20, ci95=(value - 0.02, value + 0.02))

    patch.setattr(judge, "metric", metric)


@pytest.mark.parametrize(
    ("name", "values", "kept"),
    [("top1", (0.1, 0.5, 0.3, 0.4), 1), ("perplexity", (9.0, 7.0, 5.0, 6.0), 2), ("top1", (0.9, 0, 0, 0), 0)],
)
def test_the_best_epoch_is_kept_whichever_way_the_metric_counts(
    decomposition: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    values: tuple[float, ...],
    kept: int,
) -> None:
    workspace = _copied(decomposition, tmp_path)
    _with_metrics(monkeypatch, name, *values)
    heard: list[Message] = []
    context = _run(workspace, heard.append)
    said = _said_of_training(heard)
    assert [notice.code for notice in said] == ["kept_earlier_epoch"] * 3
    assert ("before the first" if kept == 0 else f"after epoch {kept},") in said[0].detail
    metrics = [point.metric for point in finetune.curve(context, "control") if point.metric is not None]
    assert metrics == list(values)
    stages, name = workspace / "stages", "candidate-0.pt2"
    start = [pt2.read(stages / "decompose" / name), context.original]
    ends = [pt2.read(stages / "finetune" / each) for each in (name, "control.pt2")]
    assert [_same(*pair) for pair in zip(start, ends, strict=True)] == [kept == 0] * 2


def _same(one: Any, other: Any) -> bool:
    tensors, others = (dict(each.module.named_parameters()) for each in (one, other))
    return tensors.keys() == others.keys() and all(torch.equal(t, others[p]) for p, t in tensors.items())


def test_patience_ends_it(decomposition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = _copied(decomposition, tmp_path)
    _with_metrics(monkeypatch, "top1", 0.1, 0.5, 0.3)
    context = _run(workspace, epochs=9, patience=1)
    assert finetune.curve(context, "control")[-1].step == 2 * 3


def test_decay_keeps_the_products_small(
    decomposition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    energies = []
    for decay in (0.0, 0.1):
        _with_metrics(monkeypatch, "top1", 0.1, 0.2, 0.3, 0.4)
        workspace = _copied(decomposition, tmp_path / str(decay))
        context = _run(workspace, decay=decay, learning_rate=0.01)
        path = finetune.trained(context, "candidate-1")
        assert path is not None
        network = pt2.read(path)
        energies.append(float(energy(network, products(network)).detach()))
    assert 0 < energies[1] < energies[0]


def test_without_a_metric_the_distance_to_the_original_decides(tmp_path: Path) -> None:
    write_example(tmp_path, {"train": 120})
    rows = {"x": np.load(tmp_path / "train.npz")["x"]}
    network = pt2.read(tmp_path / "model.pt2")
    rate = {"learning_rate": 1.0}  # far too much: nothing is better than the start
    job = run_job(tmp_path / "job", network, rows, finetune={"epochs": 2, "batch_size": 16, **rate})
    assert ("kept_earlier_epoch", None) in job.notices
    assert all(point.metric is None for point in job.candidate.finetune)
    start = pt2.read(job.workspace / "stages" / "decompose" / "candidate-0.pt2")
    assert _same(start, pt2.read(job.workspace / "stages" / "finetune" / "candidate-0.pt2"))


def _divergences(context: Context, *stages: str) -> list[float]:
    far = candidate_judge(context)
    paths = [context.workspace / "stages" / stage / "candidate-1.pt2" for stage in stages]
    return [far.divergence(pt2.read(path)) for path in paths]


def test_refinement_alone_needs_no_labels_and_no_epochs(tmp_path: Path) -> None:
    seeded()
    network = vector_network(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64)), 16)
    x = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    job = run_job(
        tmp_path, network, {"x": x[:300]}, finetune={"epochs": 0, "refine": True}, target={"of": "parameters"}
    )
    stages = tmp_path / "stages"
    ends = [pt2.read(stages / stage / "candidate-0.pt2") for stage in ("decompose", "finetune")]
    rows = torch.from_numpy(x[300:])
    with torch.no_grad():
        before, after = (float((each(rows) - network(rows)).norm()) for each in ends)
    assert after < before
    assert job.candidate.finetune == []
    assert not (stages / "finetune" / "control.pt2").exists()  # the original has nothing to come nearer to
    fractions = [message.fraction for message in job.messages if isinstance(message, Advanced)]
    assert fractions == sorted(fractions)


def test_a_refinement_that_brings_nothing_is_undone_and_told(
    decomposition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(student: Network, *_: Any, **__: Any) -> None:
        with torch.no_grad():
            for parameter in student.module.parameters():
                parameter.mul_(0.3)

    monkeypatch.setattr(refine, "refine_blocks", spoil)
    workspace = _copied(decomposition, tmp_path)
    heard: list[Message] = []
    context = _run(workspace, heard.append, epochs=0, refine=True)
    assert [notice.code for notice in _said_of_training(heard)] == ["not_refined"] * 2
    before, after = _divergences(context, "decompose", "finetune")
    assert after == before


def test_a_lost_attempt_does_not_refine_again(
    decomposition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = _copied(decomposition, tmp_path / "undisturbed")
    heard: list[Message] = []
    _run(undisturbed, heard.append, refine=True)
    steps = 3 * EPOCHS
    blocks = (sum(isinstance(message, Advanced) for message in heard) - 3 * steps) // 2
    workspace = _copied(decomposition, tmp_path / "lost")
    with pytest.raises(_LostError):
        _run(workspace, _lost_at(blocks + 1), refine=True)  # in the first epoch
    assert "candidate-0.refined" in _files(workspace)
    again: list[Message] = []
    _run(workspace, again.append, refine=True)
    assert sum(isinstance(message, Advanced) for message in again) == 3 * steps + blocks
    assert _files(workspace) == _files(undisturbed)


def test_where_no_rate_is_asked_for_the_control_has_the_fastest_of_the_candidates(
    decomposition: Path, tmp_path: Path
) -> None:
    context = _run(_copied(decomposition, tmp_path))
    *own, control = (
        finetune.pace(context, name).learning_rate
        for name in ("candidate-0", "candidate-1", finetune.CONTROL)
    )
    assert None not in own
    assert len(set(own)) == 2
    assert control == max(rate for rate in own if rate)
    asked = _run(_copied(decomposition, tmp_path), learning_rate=1e-4)
    assert {finetune.pace(asked, name).learning_rate for name in ("candidate-1", finetune.CONTROL)} == {1e-4}


def test_all_networks_learn_the_same_share_of_the_labels(decomposition: Path, tmp_path: Path) -> None:
    context = _run(_copied(decomposition, tmp_path))
    [share] = {finetune.pace(context, name).labels_share for name in ("candidate-0", finetune.CONTROL)}
    assert share is not None
    assert 0.0 <= share < 1.0
    alone = _run(_copied(decomposition, tmp_path), distill=False)
    assert finetune.pace(alone, "candidate-0").labels_share == 1.0
