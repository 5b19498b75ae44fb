"""A case: one network with its rows, read and divided once for everybody."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from benchmarks.peers import counter
from benchmarks.peers.convert import to_modules
from workers.engine.data import Examples, Splits, split
from workers.engine.finetune import Judged, Schedule, finetune, labels_share
from workers.engine.formats import arrays, pt2
from workers.engine.graph.network import Network, trace
from workers.engine.graph.outputs import outputs_are
from workers.engine.losses import Loss, make_loss
from workers.engine.measure.quality import predict
from workers.stages.context import read_model

SEED, BATCH = 0, 128
CALIBRATION_ROWS = 512
_JUDGED_AT_ONCE = 256


@dataclass(frozen=True)
class Case:
    """A folder with `model.pt2`, `train.npz` and `test.npz`, of a network with one input that tells classes
    apart; what is made of it goes into `scratch`. A compression may look at `rows` rows."""

    folder: Path
    scratch: Path
    rows: int = CALIBRATION_ROWS

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.resolve().name if self.folder.name in (".", "") else self.folder.name

    @cached_property
    def original(self) -> Network:
        """The network as everybody gets it, ours included: from modules, traced anew."""
        read = read_model(self.folder / "model.pt2", "pt2").network
        return trace(to_modules(read.module, read.examples(2)[0]), read.inputs)

    @cached_property
    def splits(self) -> Splits:
        """The rows as our jobs divide them: train rows fit, calibrate and select, test rows do nothing but
        test."""
        return split(self._rows("train"), self._rows("test"), SEED)

    @property
    def fit(self) -> Examples:
        """What is trained on."""
        return _there(self.splits.fit)

    @property
    def test(self) -> Examples:
        """What is judged on, and nothing else."""
        return _there(self.splits.test)

    @cached_property
    def model(self) -> Path:
        """The network as a file."""
        path = self.scratch / "model.pt2"
        pt2.write(self.original, path)
        return path

    @cached_property
    def calibration(self) -> Path:
        """The rows that a compression may look at, as a file."""
        path = self.scratch / "calibration.npz"
        rows = _there(self.splits.calibration).first(self.rows)
        inputs, target = next(iter(rows.batches(len(rows))))
        if target is None:
            raise ValueError(f"{self.folder} has no targets")
        np.savez(path, x=inputs[0].numpy(), target=target.numpy())
        return path

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return self.original.sizes(1)[0][1:]

    def read(self, program: ExportedProgram) -> Network:
        """A peer's network, in the form in which ours are trained and measured."""
        return trace(program.module(check_guards=False), self.original.inputs)

    def accuracy(self, network: Network) -> float:
        """Top-1 on the test rows."""
        return _accuracy(network, self.test)

    def trained(self, network: Network, epochs: int) -> Network:
        """A copy that learned from the original and from the labels: the loop and the steps of our own
        jobs."""
        student = network.copy()
        finetune(
            student,
            self.original.copy(),
            self.fit,
            Schedule(epochs, None, BATCH, SEED),
            self._loss,
            judge=self._judged,
            advance=lambda *_: None,
        )
        return student

    def macs(self, network: Network) -> int:
        """Multiply-accumulates of one example, by the counter that serves everybody."""
        return counter.macs(network.module, torch.zeros(1, *self.shape))

    @cached_property
    def _loss(self) -> Loss:
        """As in our own jobs, where it depends on what the original has not learned of the labels."""
        make = partial(make_loss, "classes", outputs_are(self.original))
        schedule = Schedule(1, None, BATCH, SEED)
        share = labels_share(self.original.copy(), self.fit, schedule, make(labels=1.0))
        return make(labels=share)

    def _judged(self, network: Network) -> Judged:
        """By the rows kept for selection, as in our own jobs."""
        rows = _there(self.splits.selection)
        found = _accuracy(network, rows)
        return Judged(found, -found, math.sqrt(found * (1.0 - found) / len(rows)))

    def _rows(self, role: str) -> Examples:
        return Examples.of(arrays.read(self.folder / f"{role}.npz", "npz"), self.original.inputs)


def _accuracy(network: Network, examples: Examples) -> float:
    rows = {spec.name: array for spec, array in zip(network.inputs, examples.inputs, strict=True)}
    predicted = predict(network, rows, _JUDGED_AT_ONCE).argmax(1)
    targets = examples.targets()
    if targets is None:
        raise ValueError("a comparison needs targets")
    return float((predicted == targets).double().mean())


def _there(rows: Examples | None) -> Examples:
    if rows is None:
        raise ValueError("a comparison needs train rows and test rows")
    return rows


def named(folders: Sequence[Path], scratch: Path, rows: int = CALIBRATION_ROWS) -> list[Case]:
    """The cases in these folders, each with a scratch folder of its own."""
    cases = [Case(folder, scratch / folder.name, rows) for folder in folders]
    for case in cases:
        case.scratch.mkdir(parents=True, exist_ok=True)
    return cases
