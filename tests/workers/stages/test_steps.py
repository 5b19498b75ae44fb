"""Candidates that get to their budget in several steps."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.contract.spec import JobSpec
from app.contract.status import Stage
from tests.workers.engine.networks import seeded, vector_network
from tests.workers.stages.jobs import Finished, run_job
from workers.engine.formats import pt2
from workers.engine.measure import cost
from workers.messages import Advanced, Message, Order
from workers.stages import decompose, finetune, inspect, plan, steps
from workers.stages.context import Context

_ROWS, _EPOCHS, _BATCH = {"train": 120, "test": 40}, 3, 32


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and its data, which it labelled itself."""
    folder = tmp_path_factory.mktemp("example")
    seeded()
    network = vector_network(
        nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)), 48
    )
    pt2.write(network, folder / "model.pt2")
    for role, count in _ROWS.items():
        x = np.random.default_rng(count).standard_normal((count, 48)).astype(np.float32)
        np.savez(folder / f"{role}.npz", x=x, target=network(torch.from_numpy(x)).argmax(-1).numpy())
    return folder


@pytest.fixture(scope="module")
def twice(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A job in two stages."""
    train, test = (dict(np.load(example / f"{role}.npz")) for role in _ROWS)
    return run_job(
        tmp_path_factory.mktemp("twice"),
        pt2.read(example / "model.pt2"),
        train,
        test,
        task="classification",
        target={"keep": 0.4},
        finetune={"epochs": _EPOCHS, "batch_size": _BATCH, "stages": 2},
    )


def test_steps_share_out_budget_and_epochs(example: Path, tmp_path: Path) -> None:
    context = _context(example, tmp_path, stages=3, epochs=7)
    first, second, third = steps.steps(context, "candidate-0", 0.125)
    assert [first.keep, second.keep, third.keep] == pytest.approx([0.5, 0.25, 0.125])
    assert [first.epochs, second.epochs, third.epochs] == [2, 2, 3]
    assert third.name == "candidate-0"


def test_two_stages_meet_the_budget_with_as_many_training_steps_as_one(twice: Finished) -> None:
    report, candidate = twice.report, twice.candidate
    assert candidate.macs <= 0.4 * report.original.macs
    each = report.splits["fit"] // _BATCH
    taken = [point.step for point in candidate.finetune]
    assert taken[-1] == _EPOCHS * each
    assert taken == sorted(taken)
    assert taken.count(each) >= 2  # where the first ends and the second begins
    first = pt2.read(twice.workspace / "stages" / "finetune" / "candidate-0.step-1.pt2")
    assert candidate.macs < cost.count(first).macs <= 0.4**0.5 * report.original.macs


def test_the_report_tells_of_the_last_truncation(twice: Finished) -> None:
    network = pt2.read(twice.workspace / "artifacts" / "candidate-0.pt2")
    counted = cost.count(network)
    assert (counted.parameters, counted.macs) == (twice.candidate.parameters, twice.candidate.macs)
    tensors = dict(network.module.named_parameters())
    cut = [layer for layer in twice.candidate.layers if layer.rank]
    assert cut
    for layer in cut:
        own = sum(t.numel() for path, t in tensors.items() if path.startswith(f"{layer.name}."))
        assert own == layer.parameters[1], layer
        assert 0 < layer.weight_error < 1
    dense = {layer.name for layer in twice.candidate.layers if layer.method == "keep" and layer.reason}
    assert {layer for code, layer in twice.notices if code == "kept_dense"} == dense
    assert {trial.weighting.value for trial in twice.candidate.trials} == {"none", "inputs", "two_sided"}


def _context(
    example: Path, workspace: Path, emit: Callable[[Message], None] = lambda _: None, **changed: Any
) -> Context:
    if not (workspace / "inputs").exists():
        (workspace / "inputs").mkdir(parents=True)
        for name in ("model.pt2", "train.npz", "test.npz"):
            shutil.copy(example / name, workspace / "inputs" / Path(name).stem)
    spec = {
        "model": "mdl_" + "0" * 32,
        "task": "classification",
        "device": "cpu",
        "target": {"keep": 0.4},
        "finetune": {"epochs": _EPOCHS, "batch_size": _BATCH, "stages": 2, **changed},
    }
    order = Order(
        job_id="job_" + "0" * 32,
        kind="compress",
        attempt=1,
        spec=JobSpec.model_validate(spec),
        formats={"model": "pt2", "train": "npz", "test": "npz"},
    )
    return Context(order, workspace, emit)


class _LostError(Exception):
    """The attempt ends here."""


def _lost_at(advances: int) -> Callable[[Message], None]:
    left = iter(range(advances))

    def emit(message: Message) -> None:
        if isinstance(message, Advanced) and next(left, None) is None:
            raise _LostError

    return emit


def _run(context: Context) -> dict[str, bytes]:
    context.start(Stage.FINETUNE)
    finetune.run(context)
    return {path.name: path.read_bytes() for path in context.folder(Stage.FINETUNE).iterdir()}


@pytest.fixture(scope="module")
def planned(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with everything before fine-tuning."""
    context = _context(example, tmp_path_factory.mktemp("planned"))
    for stage, work in ((Stage.INSPECT, inspect), (Stage.PLAN, plan), (Stage.DECOMPOSE, decompose)):
        context.start(stage)
        work.run(context)
    return context.workspace


@pytest.fixture(scope="module")
def undisturbed(example: Path, planned: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the stage leaves."""
    workspace = tmp_path_factory.mktemp("undisturbed") / "job"
    shutil.copytree(planned, workspace)
    return _run(_context(example, workspace))


@pytest.mark.parametrize("advances", [1, 5], ids=["in the first step", "in the second"])
def test_a_lost_attempt_ends_with_the_same_bytes(
    example: Path,
    planned: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    advances: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = shutil.copytree(planned, tmp_path / "job")
    with pytest.raises(_LostError):
        _run(_context(example, workspace, _lost_at(advances)))
    decomposed: list[None] = []
    monkeypatch.setattr(steps, "best_of", _counted(decompose.best_of, decomposed))
    assert _run(_context(example, workspace)) == undisturbed
    assert len(decomposed) == (1 if advances == 1 else 0)  # what was decomposed is taken


def _counted(function: Callable[..., Any], calls: list[None]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return function(*arguments)

    return counted


@pytest.mark.parametrize("name", ["candidate-0.plan", "candidate-0.start.pt2"])
def test_a_damaged_step_is_decomposed_again(
    example: Path, planned: Path, undisturbed: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    workspace = shutil.copytree(planned, tmp_path / "job")
    folder = workspace / "stages" / "finetune"
    folder.mkdir()
    for other, content in undisturbed.items():
        (folder / other).write_bytes(content if other != name else content[:-9])
    assert _run(_context(example, workspace)) == undisturbed
