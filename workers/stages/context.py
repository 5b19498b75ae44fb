"""What every stage works with: the order, the folders, the inputs read once, and the way to report."""

import json
import math
import shutil
import time
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter

from app.contract.base import Contract
from app.contract.problem import Notice
from app.contract.spec import Device, JobSpec, Task
from app.contract.status import Stage
from workers.engine.data import Examples, Splits, split
from workers.engine.errors import EngineError
from workers.engine.formats import arrays, pt2, text
from workers.engine.formats.hf import reader as hf
from workers.engine.formats.imported import Imported
from workers.engine.formats.onnx_in import reader as onnx_in
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network, call_nodes
from workers.engine.graph.shapes import shapes
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find
from workers.engine.memory import Memory
from workers.messages import Advanced, Message, Noticed, Order, StageFinished, StageSaved, StageStarted
from workers.stages.text import Corpus

# How much of a job's time each stage is expected to take: what progress is made of.
_SHARES = {
    Stage.INSPECT: 0.02,
    Stage.PLAN: 0.03,
    Stage.DECOMPOSE: 0.10,
    Stage.FINETUNE: 0.60,
    Stage.MEASURE: 0.20,
    Stage.PACKAGE: 0.05,
}
_ETA_AFTER_SECONDS = 3.0
_MEMORY = 3  # times what calibration may hold: for roots and bases that several ranks have in common
_NOTICES = "notices.jsonl"
_RESUMABLE = frozenset({Stage.FINETUNE})  # they judge for themselves what a lost attempt left

# The forms in which a model may be uploaded.
_READERS: dict[str, Callable[[Path], Imported]] = {
    "pt2": lambda path: Imported(pt2.read(path)),
    "onnx": onnx_in.read,
    "zip": hf.read,
}

T = TypeVar("T")


class Context:
    """One attempt at one job. Stages read the inputs and earlier stages' folders, and write their own.

    `device` is where to compute, "cuda" or "cpu". Raises `EngineError` (`no_gpu`) where the job demands a GPU
    and this machine has none.
    """

    def __init__(self, order: Order, workspace: Path, emit: Callable[[Message], None]) -> None:
        self.order = order
        self.workspace = workspace
        self.emit = emit
        self.device = _device(self.spec.device)
        self._dense: Network | None = None
        self._made: dict[Hashable, Any] = {}
        self._folders = workspace / "stages"
        self._stage = Stage.INSPECT
        self._began = self._stage_began = time.monotonic()
        self._began_at = sum(_SHARES[stage] for stage in order.done)

    @property
    def spec(self) -> JobSpec:
        """What the user asked for."""
        if self.order.spec is None:
            raise ValueError("an inspection has no specification")
        return self.order.spec

    @cached_property
    def original(self) -> Network:
        """The user's network. Shared by the stages of this attempt: never edited."""
        return self.imported.network

    @cached_property
    def imported(self) -> Imported:
        """The user's network, and what there is to say about its file."""
        return read_model(self.input("model"), self.order.formats["model"])

    @property
    def dense(self) -> Network:
        """The dense network that is decomposed: the original, unless an earlier step has trained one. Never
        edited."""
        return self._dense or self.original

    def decomposing(self, dense: Network, folders: Path) -> "Context":
        """This job, as it decomposes another dense network: what stages make is in folders of their own, and
        nobody hears of it. The original stays what outputs are compared with."""
        other = copy(self)
        other._dense, other._folders, other.emit, other._made = dense, folders, lambda _: None, {}
        other.__dict__.pop("memory", None)
        return other

    @cached_property
    def row_bytes(self) -> int:
        """What all activations of one row take, as single-precision numbers; views take nothing."""
        sizes = shapes(self.original)
        made = [
            node for node in call_nodes(self.original.module) if not getattr(node.target, "is_view", False)
        ]
        return 4 * sum(math.prod(sizes[node.name]) for node in made if node.name in sizes)

    @cached_property
    def splits(self) -> Splits:
        """The user's data, split the same way in every attempt."""
        fits = self.spec.finetune.epochs > 0
        return split(self._examples("train"), self._examples("test"), self.spec.seed, fits=fits)

    @cached_property
    def task(self) -> Task:
        """The task that the metric belongs to; without targets there is none."""
        return self.spec.task or Task.NONE

    @cached_property
    def memory(self) -> Memory:
        """What this attempt computed of its layers."""
        return Memory(_MEMORY * self.spec.calibration.memory_mb << 20)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """What `make` makes, or made when this attempt first asked for it by this name."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def written(self, path: Path) -> Network:
        """A network that this job wrote, with the original's inputs: the file does not tell how long the
        user's examples were, and for these costs are counted."""
        return replace(pt2.read(path), inputs=self.original.inputs)

    def layers(self, network: Network) -> list[Layer]:
        """The layers of the original, or of a copy of it, as this job decides about them."""
        return find(network, joint=self.spec.joint)

    def input(self, role: str) -> Path:
        """An uploaded file."""
        return self.workspace / "inputs" / role

    def folder(self, stage: Stage) -> Path:
        """A stage's folder: its checkpoint."""
        folder = self._folders / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def latencies(self) -> dict[str, dict[str, float]]:
        """What layers took on this machine in earlier jobs, in milliseconds: by signature, then by form."""
        path = self.workspace / "latencies.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def artifacts(self) -> Path:
        """What the user will download."""
        folder = self.workspace / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, stage: Stage) -> None:
        """Begin a stage: its clock, and its folder, empty of what a lost attempt may have left; a stage that
        can go on from there finds all of it but the notices."""
        self._stage, self._stage_began = stage, time.monotonic()
        if stage in _RESUMABLE:
            (self.folder(stage) / _NOTICES).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder(stage))
        self.emit(StageStarted(stage=stage))

    def saved(self) -> None:
        """Say that the current stage's folder holds what another attempt can go on from."""
        self.emit(StageSaved(stage=self._stage))

    def finish(self, stage: Stage) -> None:
        """End a stage: from here on its folder is a checkpoint."""
        (self.folder(stage) / "seconds").write_text(f"{self.stage_seconds:.3f}")
        self.advance(stage, 1.0)
        self.emit(StageFinished(stage=stage))

    @property
    def stage_seconds(self) -> float:
        """Wall-clock seconds since the current stage began."""
        return time.monotonic() - self._stage_began

    def notice(self, code: str, detail: str, layer: str | None = None) -> None:
        """Tell the user something that does not stop the job; kept with the job, and in its report."""
        said = Notice(code=code, detail=detail, layer=layer)
        with (self.folder(self._stage) / _NOTICES).open("a") as file:
            file.write(said.model_dump_json() + "\n")
        self.emit(Noticed(notice=said))

    @property
    def noticed(self) -> list[Notice]:
        """Every notice of this job so far, earlier attempts' stages included."""
        files = [self.folder(stage) / _NOTICES for stage in Stage]
        lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
        return [Notice.model_validate_json(line) for line in lines]

    def advance(self, stage: Stage, fraction: float) -> None:
        """Report that `fraction` of a stage is done."""
        order = list(_SHARES)
        before = sum(_SHARES[earlier] for earlier in order[: order.index(stage)])
        overall = min(1.0, before + _SHARES[stage] * fraction)
        self.emit(Advanced(fraction=overall, eta_seconds=self._eta(overall)))

    def _eta(self, overall: float) -> float | None:
        elapsed, gained = time.monotonic() - self._began, overall - self._began_at
        if elapsed < _ETA_AFTER_SECONDS or gained <= 0:
            return None
        return round(elapsed * (1.0 - overall) / gained, 1)

    def _examples(self, role: str) -> Examples | None:
        if role not in self.order.formats:
            return None
        corpus = self.corpus(role)
        stored = corpus.rows() if corpus else arrays.read(self.input(role), self.order.formats[role])
        return Examples.of(stored, self.original.inputs)

    def corpus(self, role: str) -> Corpus | None:
        """The data of a role, where it is raw text."""
        if self.order.formats.get(role) != text.FORMAT:
            return None
        inputs, folder = (self.input("model"), self.imported, self.input(role)), self.workspace / "text"
        return Corpus(self.spec, role, *inputs, folder)


def read_model(path: Path, format: str) -> Imported:  # noqa: A002  # the word the contract uses
    """A user's network, in the form in which its layers are looked for; raises `Rejected`."""
    read = _READERS[format](path)
    return replace(read, network=canonicalise(read.network))


def _device(wanted: Device) -> str:
    if wanted is Device.CUDA and not torch.cuda.is_available():
        raise EngineError(
            "no_gpu",
            "This worker has no GPU.",
            hint="Submit with the device `auto` or `cpu`.",
            field="device",
        )
    return "cuda" if wanted is not Device.CPU and torch.cuda.is_available() else "cpu"


def save(path: Path, value: Contract | Sequence[Contract]) -> None:
    """Write contract models as JSON; a number that is none becomes null."""
    values: Any = (
        [item.model_dump(mode="json") for item in value]
        if isinstance(value, Sequence)
        else value.model_dump(mode="json")
    )
    path.write_text(json.dumps(values, allow_nan=False))


def load(path: Path, kind: type[T]) -> T:
    """Read what `save` wrote."""
    return TypeAdapter(kind).validate_json(path.read_bytes())
