"""What the calibration rows say, between the stages: gathered once, read by every stage that weighs
errors."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from app.contract.spec import ENOUGH_ROWS, BudgetRanks, Task, Weighting
from app.contract.status import Stage
from workers.engine.calibration.collect import Goal, collect
from workers.engine.calibration.moments import Moments, Sides, weighting
from workers.engine.data import Batch, Examples
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import outputs_are
from workers.engine.layers import weighting as weights
from workers.engine.layers.base import Layer
from workers.engine.losses import make_loss
from workers.engine.measure import cost
from workers.engine.memory import Memory
from workers.engine.padding import real_positions
from workers.stages.context import Context

_BATCH = 16
_THIN_ROWS = 64  # fewer may say nothing that is better than no weighting
_JUDGED_ROWS = 64  # on which a whole candidate is judged
_SENSITIVITY_ROWS, _LEAST_SENSITIVITY_ROWS = 32, 4  # on which one layer's error is
_SENSITIVITY_MACS = 4_000_000_000  # of one such judgement
_HELD_BYTES = 1 << 29  # of the original's outputs
_SENSITIVITY_BYTES = 1 << 27  # the same for one layer's error: every layer is judged on all of them
_REMEMBERED_BYTES = 1 << 31  # of its activations on those rows
_BATCH_BYTES = 1 << 32  # of a batch's activations: a backward pass may hold them all
_MEGABYTE = 1 << 20
_SIDES: dict[Weighting, Sides] = {
    Weighting.NONE: "none",
    Weighting.INPUTS: "inputs",
    Weighting.TWO_SIDED: "two_sided",
}


def gather(context: Context, layers: Sequence[Layer], *, parts: int = 1) -> None:
    """Write the moments of every layer that can be factorized, of each part of the rows by itself; without
    calibration rows there are none."""
    rows = calibration_rows(context)
    if rows is None or context.spec.calibration.weighting is Weighting.NONE:
        return
    index = {layer.name: position for position, layer in enumerate(layers)}
    for part in range(parts):
        folder = _folder(context) / str(part)
        folder.mkdir(parents=True)

        def keep(layer: Layer, moments: Moments, folder: Path = folder) -> None:
            moments.save(folder / f"{index[layer.name]}.npz")

        collect(
            context.dense,
            layers,
            partial(batches, context, fold(rows, part, parts)),
            goal=_goal(context),
            memory=context.spec.calibration.memory_mb * _MEGABYTE,
            keep=keep,
        )


def fold(rows: Examples, part: int, parts: int, *, others: bool = False) -> Examples:
    """One of several parts of the rows, or all the others."""
    mine = np.arange(len(rows)) % parts == part
    return rows.take(np.flatnonzero(~mine if others else mine))


def candidates(context: Context) -> list[Weighting]:
    """The weightings to try: what was asked for; without moments none but the plain one.

    `auto` is the one that knows most. Where it knows few rows each is tried, unless the network is dear to
    run and the sensitivities of its layers are to be measured.
    """
    if not _folder(context).exists():
        return [Weighting.NONE]
    asked, rows = context.spec.calibration.weighting, calibration_rows(context)
    if asked is not Weighting.AUTO:
        return [asked]
    count = 0 if rows is None else len(rows)
    if count >= ENOUGH_ROWS or (is_dear(context) and isinstance(context.spec.ranks, BudgetRanks)):
        return [Weighting.TWO_SIDED]
    return [by for by in _SIDES if count < _THIN_ROWS or by is not Weighting.NONE]


def weigh(context: Context, layers: Sequence[Layer], by: Weighting, *, without: int | None = None) -> None:
    """Tell every layer what was gathered about it, all parts together but the one left out; `layers` in the
    order of `gather`."""
    folder = _folder(context)
    parts = sorted(folder.iterdir()) if folder.exists() else []
    for index, layer in enumerate(layers):
        memory = context.memory.within(index, without)
        layer.memory = memory.within(by)
        if parts and layer.methods:
            paths = [part / f"{index}.npz" for part in parts if part.name != str(without)]
            layer.weigh = partial(_weighting, paths, _SIDES[by], layer.takes_mean, memory)


def _weighting(paths: Sequence[Path], sides: Sides, centred: bool, memory: Memory) -> weights.Weighting:
    def compute() -> weights.Weighting:
        moments = reduce(Moments.plus, map(Moments.load, paths))
        return weighting(moments, sides, centred=centred)

    return memory.once(sides, compute)


def calibration_rows(context: Context) -> Examples | None:
    """The rows that moments are taken of."""
    return _first(context.splits.calibration, context.spec.calibration.rows)


def held_out(context: Context) -> Examples | None:
    """Rows that served no calibration, for the errors of single layers."""
    return _first(context.splits.selection, _SENSITIVITY_ROWS)


class Judge:
    """Measures how far a network's outputs are from those of another, on rows held out of the calibration.

    Nats where the outputs rank classes, else squared error relative to the other's.
    """

    def __init__(self, context: Context, other: Network, rows: int, held: int = _HELD_BYTES) -> None:
        self._context = context
        judged = _affordable(context, _first(context.splits.selection, rows), held)
        self._loss = make_loss(
            "classes" if _goal(context) == "classes" else "outputs",
            outputs_are(context.original),
        )
        self._inputs = [] if judged is None else [inputs for inputs, _ in batches(context, judged)]
        self._other = other

    @cached_property
    def _wanted(self) -> list[Any]:
        """The other's outputs: not computed for who only asks whether there is anything to judge by."""
        with torch.inference_mode():
            return [self._other(*inputs) for inputs in self._inputs]

    def divergence(self, network: Callable[..., Any]) -> float:
        """The mean over the rows."""
        total = 0.0
        with torch.inference_mode():
            for wanted, inputs in zip(self._wanted, self._inputs, strict=True):
                positions = real_positions(self._context.original.inputs, inputs)
                loss = self._loss(network(*inputs), wanted, None, positions)
                total += float(loss) * self._other.rows_in(inputs)
        return total / max(1, sum(map(self._other.rows_in, self._inputs)))

    @property
    def remembered(self) -> int:
        """Of how many batches all activations may be held."""
        rows = self._other.rows_in(self._inputs[0]) if self._inputs else 1
        return _REMEMBERED_BYTES // (rows * self._context.row_bytes)

    def __bool__(self) -> bool:
        """Whether there is anything to judge by."""
        return bool(self._inputs)


def sensitivity_judge(context: Context) -> Judge:
    """For one layer's error in the dense network that is decomposed. Every layer is judged several times:
    fewer rows where they are dear."""
    rows = min(_SENSITIVITY_ROWS, max(_LEAST_SENSITIVITY_ROWS, _affordable_rows(context)))
    return Judge(context, context.dense, rows, _SENSITIVITY_BYTES)


def is_dear(context: Context) -> bool:
    """Whether hardly any rows can be run for every layer."""
    return _affordable_rows(context) <= _LEAST_SENSITIVITY_ROWS


def _affordable_rows(context: Context) -> int:
    return _SENSITIVITY_MACS // max(1, cost.count(context.original).macs)


def candidate_judge(context: Context) -> Judge:
    """For a whole candidate: how far it is from the original."""
    return Judge(context, context.original, _JUDGED_ROWS)


def _affordable(context: Context, rows: Examples | None, most: int) -> Examples | None:
    """As many rows as have outputs of `most` bytes, and one at least; none where they fill no batch."""
    first = None if rows is None else next(iter(batches(context, rows)), None)
    if rows is None or first is None:
        return None
    inputs, _ = first
    with torch.inference_mode():
        leaves = pytree.tree_leaves(context.original(*inputs))
    held = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
    affordable = int(most * context.original.rows_in(inputs) / held)
    return rows.first(max(context.original.batch_size(1), affordable))


def batches(context: Context, rows: Examples) -> Iterable[Batch]:
    """Rows in batches that the network takes: of its own length where that is fixed, else of at most 16 rows,
    and of fewer where their activations are large."""
    fixed = context.original.batch_symbol is None
    affordable = max(1, _BATCH_BYTES // context.row_bytes)
    size = context.original.batch_size(min(_BATCH, affordable, len(rows)))
    return rows.batches(size, whole=fixed)


def _first(rows: Examples | None, count: int) -> Examples | None:
    return rows.first(count) if rows is not None and len(rows) else None


def _goal(context: Context) -> Goal:
    ranks = context.task in (Task.CLASSIFICATION, Task.LANGUAGE_MODELING)
    return "classes" if ranks or outputs_are(context.original) != "logits" else "values"


def _folder(context: Context) -> Path:
    return context.folder(Stage.PLAN) / "moments"
