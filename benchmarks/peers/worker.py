"""What an adapter stands on, in the peer's environment: the request, the search for a budget, the answer."""

import copy
import importlib.abc
import importlib.machinery
import json
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from benchmarks.peers.convert import to_modules
from benchmarks.peers.counter import macs

MISSED = 0.05  # of the budget: what is farther away from it has not met it
_FEW_CHANNELS = 8
_CALLS = 10  # of a peer, to find the knob that meets a budget
_CLOSE = 0.01  # below the budget, as a share of it: near enough to stop searching


@dataclass(frozen=True)
class Task:
    """What a peer is to do: keep `keep` of the multiply-accumulates of the model in the file `model`, of
    which an example has the shape `shape` without the batch. `calibration` holds rows that it may look at."""

    method: str
    keep: float
    model: Path
    calibration: Path
    shape: tuple[int, ...]

    @cached_property
    def original(self) -> GraphModule:
        """The network as stock modules, as it was."""
        program = torch.export.load(self.model)
        return to_modules(program.module(check_guards=False), self.example(2))

    def head(self) -> str:
        """The path of the last linear layer, which gives the outputs."""
        modules: list[tuple[str, nn.Module]] = list(self.original.named_modules())
        return [path for path, module in modules if isinstance(module, nn.Linear)][-1]

    def left_alone(self) -> list[str]:
        """The paths of what is better not decomposed: the head, and convolutions of so few channels that a
        share of them is one. Peers that take a list of exceptions get this one."""
        few = [
            path
            for path, module in self.original.named_modules()
            if isinstance(module, nn.Conv2d) and module.in_channels < _FEW_CHANNELS
        ]
        return [self.head(), *few]

    def example(self, batch: int = 1) -> Tensor:
        """Noise, shape (batch, *shape)."""
        return torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(0))

    @cached_property
    def budget(self) -> float:
        """Multiply-accumulates that may remain."""
        return self.keep * macs(self.original, self.example())

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The calibration rows and their labels."""
        with np.load(self.calibration) as rows:
            return torch.from_numpy(rows["x"]), torch.from_numpy(rows["target"])


@dataclass(frozen=True)
class Call:
    """One call of a peer: what its knob was set to, what share of the multiply-accumulates came out, and how
    long it took in seconds of the processor: others on the machine do not count."""

    knob: float
    kept: float
    seconds: float


@dataclass(frozen=True)
class Compressed:
    """What a peer made. `seconds` of the processor went into the calls that it needed; `calls` are all that
    were made to meet the budget."""

    module: nn.Module
    seconds: float
    calls: Sequence[Call] = ()
    remark: str = ""


Method = Callable[[Task], Compressed]
Build = Callable[[GraphModule, float], nn.Module]
"""Compress a network, which may be edited in place, with the knob so."""


def meet_budget(task: Task, build: Build, first: float | None = None) -> Compressed:
    """Bisect a knob in (0, 1), which costs more the higher it is, for the costliest network within the
    budget.

    Peers without a budget are used this way, and those that miss theirs, which are asked for it `first`.
    Where no call comes below the budget, the cheapest network is returned. `seconds` is that of the call
    which made the network.
    Raises `RuntimeError` where no call gave one.
    """
    search = _Search(task, build)
    if first is not None and abs(search.call(first) - task.keep) <= MISSED * task.keep:
        return search.found()
    low, high = 0.0, 1.0
    while len(search.calls) < _CALLS and not search.done:
        middle = (low + high) / 2
        if search.call(middle) > task.keep:
            high = middle
        else:
            low = middle
    return search.found()


@dataclass
class _Search:
    """The calls so far and the best network among them."""

    task: Task
    build: Build
    calls: list[Call] = field(default_factory=list)
    best: tuple[nn.Module, Call] | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether the best is close below the budget."""
        return self.best is not None and 0 <= self.task.keep - self.best[1].kept <= _CLOSE * self.task.keep

    def found(self) -> Compressed:
        """The best; raises `RuntimeError` where no call gave a network."""
        if self.best is None:
            raise RuntimeError(f"no setting could be carried out: {self.error!r}")
        module, call = self.best
        return Compressed(module, call.seconds, self.calls)

    def call(self, knob: float) -> float:
        """The share of multiply-accumulates that the knob leaves. A peer that fails is asked for more."""
        network = copy.deepcopy(self.task.original)
        started = time.process_time()
        try:
            module = self.build(network, knob)
        except Exception as error:  # whatever a peer raises on a rank that it cannot make
            self.error = error
            self.calls.append(Call(knob, 0.0, time.process_time() - started))
            return 0.0
        seconds = time.process_time() - started
        kept = macs(module.eval(), self.task.example()) * self.task.keep / self.task.budget
        call = Call(knob, kept, seconds)
        self.calls.append(call)
        if self.best is None or self._rank(kept) > self._rank(self.best[1].kept):
            self.best = (module, call)
        return kept

    def _rank(self, kept: float) -> tuple[bool, float]:
        within = kept <= self.task.keep
        return within, kept if within else -kept


def main(methods: Mapping[str, Method]) -> None:
    """Do what the request says that was named on the command line, and answer in its folder: `result.json`,
    and the network as `compressed.pt2`."""
    path = Path(sys.argv[1])
    request = json.loads(path.read_text())
    task = Task(
        request["method"],
        request["keep"],
        Path(request["model"]),
        Path(request["calibration"]),
        tuple(request["shape"]),
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = methods[task.method](task)
    save(found.module, task, path.with_name("compressed.pt2"))
    answer = {
        "seconds": found.seconds,
        "calls": [[call.knob, call.kept, call.seconds] for call in found.calls],
        "remark": found.remark,
    }
    path.with_name("result.json").write_text(json.dumps(answer))


def save(module: nn.Module, task: Task, path: Path) -> None:
    """Write the network as torch.export does, its batch free."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module.eval(), (task.example(3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


class _Nothing(type):
    """A class whose attributes are classes like it."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(name, (), {})


class _Hollow(types.ModuleType):
    """A module in which every name is found, and means nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(name, (), {})


class _Hollows(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        known = name.split(".", maxsplit=1)[0] in self.packages
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Hollow(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


def pretend(*packages: str) -> None:
    """Let imports of packages that are not installed succeed: some peers import, at their top level, what
    only other parts of them use. Called before the peer is imported."""
    sys.meta_path.insert(0, _Hollows(packages))
