"""The cells of the comparison: one network each, made by somebody for one budget."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from app.contract.report import Report
from app.contract.status import Stage
from benchmarks.jobs import job_order, run_stages
from benchmarks.peers import counter, environments
from benchmarks.peers.case import BATCH, SEED, Case
from benchmarks.peers.catalogue import OURS, Peer
from benchmarks.peers.environments import PeerFailed, last_line
from benchmarks.peers.worker import MISSED
from workers.engine.formats import onnx, pt2
from workers.engine.graph.network import Network
from workers.engine.measure import latency
from workers.messages import Message, StageFinished, StageStarted

_PATIENCE = 3600.0  # seconds for one call of a peer
_TIMING_SECONDS = 30.0  # for all networks of a case together, thirty runs each at least
ORIGINAL, CONTROL = "original", "original, trained"


@dataclass(frozen=True)
class Cell:
    """One row of the table: shares are of the original's; `seconds` of the processor, without training;
    `calls` of the peer to meet the budget. What was not measured is None, and `remark` says why."""

    who: str
    keep: float | None = None
    before: float | None = None
    after: float | None = None
    macs: float | None = None
    parameters: float | None = None
    latency: float | None = None
    seconds: float | None = None
    calls: int = 1
    remark: str = ""


@dataclass(frozen=True)
class _Made:
    """A network before and after training."""

    before: Network
    after: Network


def original(case: Case) -> Cell:
    """The network as it was."""
    _export(case.original, case.scratch / "original.onnx")
    accuracy = case.accuracy(case.original)
    return Cell(ORIGINAL, before=accuracy, after=accuracy, macs=1.0, parameters=1.0, latency=1.0)


def control(case: Case, epochs: int) -> Cell:
    """The network as it was, trained for the same steps: what training alone gains."""
    accuracy = case.accuracy(case.trained(case.original, epochs))
    return Cell(CONTROL, after=accuracy, macs=1.0, parameters=1.0, latency=1.0)


def label(peer: Peer, method: str) -> str:
    """What a peer's method is called in the table."""
    return f"{peer.package}, {method}"


def theirs(case: Case, peer: Peer, method: str, keep: float, epochs: int, interpreter: Path) -> Cell:
    """What a peer makes, trained and judged."""
    cell = Cell(label(peer, method), keep)
    folder = _fresh(case, cell)
    try:
        told = ask(case, peer, method, keep, interpreter, folder)
        program = torch.export.load(folder / "compressed.pt2")
    except PeerFailed as failure:
        return replace(cell, remark=str(failure))
    except (OSError, RuntimeError, ValueError) as error:  # what cannot be opened again is a finding too
        return replace(cell, remark=last_line(f"{type(error).__name__}: {error}"))
    before = case.read(program)
    made = _Made(before, case.trained(before, epochs))
    cell = replace(cell, seconds=told["seconds"], calls=max(1, len(told["calls"])), remark=told["remark"])
    return _judged(case, cell, made, folder)


def ask(case: Case, peer: Peer, method: str, keep: float, interpreter: Path, folder: Path) -> dict[str, Any]:
    """What a peer tells of its work, which it leaves in `folder`; raises `PeerFailed`."""
    request = folder / "request.json"
    wanted = {
        "method": method,
        "keep": keep,
        "model": str(case.model.resolve()),
        "calibration": str(case.calibration.resolve()),
        "shape": case.shape,
    }
    request.write_text(json.dumps(wanted))
    environments.run(peer, interpreter, request.resolve(), _PATIENCE)
    told: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return told


def ours(case: Case, keep: float, epochs: int) -> Cell:
    """What a job of ours makes: the whole pipeline, its own training included."""
    cell = Cell(OURS, keep)
    folder = _fresh(case, cell)
    cell = replace(cell, seconds=run(case, keep, epochs, folder))
    report = Report.model_validate_json((folder / "result.json").read_bytes())
    if report.splits != case.splits.sizes:
        raise AssertionError("the job divided the rows otherwise than the comparison")
    stages = folder / "stages"
    decomposed, trained = (stages / stage / "candidate-0.pt2" for stage in (Stage.DECOMPOSE, Stage.FINETUNE))
    made = _Made(pt2.read(decomposed), pt2.read(trained))
    return _judged(case, cell, made, folder)


def run(case: Case, keep: float, epochs: int, folder: Path, skip: Sequence[Stage] = ()) -> float:
    """Run a job of ours in `folder`, but for the stages to skip; seconds of the processor for the
    compression without training."""
    data = {role: case.folder / f"{role}.npz" for role in ("train", "test")}
    clock = _Clock()
    order = job_order(_spec(case, keep, epochs), {"model": case.model, **data}, folder)
    run_stages(order.model_copy(update={"done": list(skip)}), folder, clock.hear)
    return clock.seconds[Stage.PLAN] + clock.seconds[Stage.DECOMPOSE]


class _Clock:
    """Seconds of the processor that every stage took."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}
        self.began = 0.0

    def hear(self, message: Message) -> None:
        """Start and stop by a job's messages."""
        if isinstance(message, StageStarted):
            self.began = time.process_time()
        if isinstance(message, StageFinished):
            self.seconds[message.stage] = time.process_time() - self.began


def _spec(case: Case, keep: float, epochs: int) -> dict[str, Any]:
    return {
        "task": "classification",
        "target": {"of": "macs", "keep": keep},
        "calibration": {"rows": case.rows},
        "finetune": {"epochs": epochs, "batch_size": BATCH},
        "seed": SEED,
    }


def _judged(case: Case, cell: Cell, made: _Made, folder: Path) -> Cell:
    macs = case.macs(made.before) / case.macs(case.original)
    return replace(
        cell,
        before=case.accuracy(made.before),
        after=case.accuracy(made.after),
        macs=macs,
        parameters=counter.parameters(made.before.module) / counter.parameters(case.original.module),
        remark="; ".join(
            filter(None, [cell.remark, _missed(cell, macs), _export(made.after, folder / "network.onnx")])
        ),
    )


def _missed(cell: Cell, macs: float) -> str:
    wanted = cell.keep or 1.0
    return (
        f"misses the budget by {abs(macs / wanted - 1):.0%}" if abs(macs - wanted) > MISSED * wanted else ""
    )


def _export(network: Network, path: Path) -> str:
    """Write ONNX; says what went wrong."""
    try:
        onnx.write(network, path)
    except Exception as error:  # some peers' networks have no ONNX form, and that is a finding
        path.unlink(missing_ok=True)
        return last_line(f"no ONNX: {error}")
    return ""


def timed(case: Case, cells: list[Cell]) -> list[Cell]:
    """The cells with their latency over the original's: ONNX Runtime, one thread, batch 1, in turns,
    medians."""
    files = {cell: _folder(case, cell) / "network.onnx" for cell in cells if cell.keep is not None}
    runners = {
        str(path): latency.onnx_runner(path, case.original.examples(1), 1)
        for path in [case.scratch / "original.onnx", *files.values()]
        if path.exists()
    }
    found = latency.interleave(runners, seconds=_TIMING_SECONDS)
    whole = found[str(case.scratch / "original.onnx")].p50_ms
    return [
        replace(cell, latency=found[str(files[cell])].p50_ms / whole)
        if cell in files and str(files[cell]) in found
        else cell
        for cell in cells
    ]


def _folder(case: Case, cell: Cell) -> Path:
    return case.scratch / f"{cell.who} {cell.keep}".replace(" ", "-").replace(",", "")


def _fresh(case: Case, cell: Cell) -> Path:
    folder = _folder(case, cell)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def save(path: Path, cells: list[Cell]) -> None:
    """As JSON."""
    path.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def load(path: Path) -> list[Cell]:
    """What `save` wrote."""
    return [Cell(**fields) for fields in json.loads(path.read_text())]
