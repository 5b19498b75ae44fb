"""Examples: the rows of a data set, batched, shuffled and split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.engine.errors import EngineError
from workers.engine.graph.network import Input
from workers.engine.rows import ChosenRows, Rows, parts, whole

Batch = tuple[tuple[Tensor, ...], Tensor | None]
IGNORED_LABEL = -100
"""The label that training libraries leave out of their losses: padding, prompts, rows nobody labelled."""
TARGET = "target"
"""The name of the array that holds the targets; the others are inputs."""
_LEAST_ROWS = 10


@dataclass(frozen=True)
class Examples:
    """Rows for a network: one array per input in the network's order, and the targets where there are any.

    They may be more than memory holds: nothing here reads rows before a batch of them is asked for.
    """

    inputs: tuple[Rows, ...]
    target: Rows | None
    specs: tuple[Input, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Rows], inputs: tuple[Input, ...]) -> "Examples":
        """Order arrays by the network's inputs; a single input takes the one array of any name.

        Raises:
            EngineError: `input_missing`, naming it; `rows_differ` where an input that has no axis for
                rows is not the same in all of them.
        """
        named = {name: array for name, array in arrays.items() if name != TARGET}
        if len(inputs) == len(named) == 1:
            named = {inputs[0].name: next(iter(named.values()))}
        missing = [spec.name for spec in inputs if spec.name not in named]
        if missing:
            raise EngineError("input_missing", f"The data set has no array {missing[0]!r}.", field="data")
        for spec in inputs:
            if spec.row_axis is None:
                _demand_one_value(spec.name, named[spec.name])
        return cls(tuple(named[spec.name] for spec in inputs), arrays.get(TARGET), inputs)

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """The given rows, not copied."""
        target = None if self.target is None else ChosenRows(self.target, rows)
        return Examples(tuple(ChosenRows(array, rows) for array in self.inputs), target, self.specs)

    def first(self, count: int) -> "Examples":
        """The first rows, `count` of them at most."""
        return self.take(np.arange(min(count, len(self))))

    def batches(
        self, size: int, *, rows: NDArray[np.int64] | None = None, device: str = "cpu", whole: bool = False
    ) -> Iterator[Batch]:
        """Batches of `size` rows, in order or in the order of `rows`; `whole` drops a last, smaller one."""
        order = np.arange(len(self)) if rows is None else rows
        end = len(order) - len(order) % size if whole else len(order)
        for start in range(0, end, size):
            yield self._batch(order[start : min(start + size, end)], device)

    def _batch(self, rows: NDArray[np.int64], device: str) -> Batch:
        arrays = zip(self.specs, self.inputs, strict=True)
        inputs = tuple(spec.of_rows(array[rows], device) for spec, array in arrays)
        target = None if self.target is None else torch.as_tensor(np.asarray(self.target[rows])).to(device)
        return inputs, target

    def targets(self) -> Tensor | None:
        """All targets, in memory."""
        return None if self.target is None else torch.as_tensor(np.asarray(whole(self.target)))


def _demand_one_value(name: str, array: Rows) -> None:
    first = array[np.zeros(1, np.int64)]
    repeated = ((part, np.broadcast_to(first, part.shape)) for part in parts(array))
    if not all(np.array_equal(part, wanted, equal_nan=True) for part, wanted in repeated):
        raise EngineError(
            "rows_differ",
            f"The input {name} has no axis for rows and has to be the same for all; the data's rows differ.",
            hint="Make a data set, and a job, of the rows that have it alike.",
            field="data",
        )


@dataclass(frozen=True)
class Splits:
    """Disjoint rows: `fit` trains, `calibration` re-estimates statistics, `selection` judges while training,
    `test` is touched once, at the end. Empty splits are None."""

    fit: Examples | None = None
    calibration: Examples | None = None
    selection: Examples | None = None
    test: Examples | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Rows per split."""
        named = {
            "fit": self.fit,
            "calibration": self.calibration,
            "selection": self.selection,
            "test": self.test,
        }
        return {name: len(examples) for name, examples in named.items() if examples is not None}


def split(train: Examples | None, test: Examples | None, seed: int, *, fits: bool = True) -> Splits:
    """Train rows become 80 % fitting, 10 % calibration, 10 % selection; 80 % calibration and 20 % selection
    where nothing is fitted. Without test rows a fifth is first set aside for them.

    Raises:
        EngineError: `dataset_too_small`.
    """
    if train is None:
        return Splits(test=test)
    if len(train) < _LEAST_ROWS:
        raise EngineError(
            "dataset_too_small",
            f"{len(train)} rows cannot be split: {_LEAST_ROWS} are the least.",
            hint="Add rows, or leave out `data.train`.",
            field="data.train",
        )
    order = np.random.default_rng(seed).permutation(len(train))
    if test is None:
        aside, order = np.split(order, [len(order) // 5])
        test = train.take(aside)
    shares = (0.8, 0.9) if fits else (0.0, 0.8)
    fit, calibration, selection = np.split(order, [int(share * len(order)) for share in shares])
    return Splits(train.take(fit) if fits else None, train.take(calibration), train.take(selection), test)
