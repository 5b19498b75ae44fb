"""The scores that the greedy selection goes by: the metric with one layer alone compressed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from app.contract.spec import Weighting
from app.planning.layers import STEPS
from benchmarks.rivals import SHARES, Curve, Menus
from benchmarks.row_values import row_values
from workers.engine.graph.rerun import Rerun
from workers.engine.layers.base import Layer
from workers.engine.layers.substitute import substitute
from workers.engine.ranks.sensitivity import replaced
from workers.stages.calibration import batches, weigh
from workers.stages.context import Context

_ROWS = 256
_REMEMBERED_BYTES = 1 << 31


def curves(context: Context, menus: Menus, by: Weighting) -> dict[str, Curve]:
    """For every layer that has forms: (share of its MACs, metric on at most 256 rows kept for selection), of
    the form nearest below each of a few shares, and the original's at a share of 1.

    Factors are those of the closed form, not refined.
    """
    score, frozen = _Score(context), context.original.copy()
    rerun = Rerun(frozen, score.remembered)
    whole = score(rerun)
    copies = [_fresh(context, by) for _ in SHARES]
    found: dict[str, Curve] = {}
    for layer in menus.layers:
        forms = {
            menus.within(layer, share, STEPS[0]): fresh for share, fresh in zip(SHARES, copies, strict=True)
        }
        points = [
            (form.macs / layer.macs, replaced(frozen, rerun, substitute(fresh[layer.name], form)[1], score))
            for form, fresh in forms.items()
            if form is not None
        ]
        if points:
            found[layer.name] = [*points, (1.0, whole)]
    return found


def _fresh(context: Context, by: Weighting) -> dict[str, Layer]:
    layers = context.layers(context.original.copy())
    weigh(context, layers, by)
    for layer in layers:
        layer.polished = False
    return {layer.name: layer for layer in layers}


class _Score:
    """The mean over rows of what the metric is made of."""

    def __init__(self, context: Context) -> None:
        self._context, rows = context, context.splits.selection
        if rows is None:
            raise ValueError("the greedy selection needs rows to score on")
        rows = rows.first(_ROWS)
        self._batches = list(batches(context, rows))
        with torch.inference_mode():
            self._original = [_first(context.original(*inputs)) for inputs, _ in self._batches]

    @property
    def remembered(self) -> int:
        """Of how many batches all activations may be held."""
        return _REMEMBERED_BYTES // (len(self._batches[0][0][0]) * self._context.row_bytes)

    def __call__(self, network: Callable[..., Any]) -> float:
        with torch.inference_mode():
            found = [_first(network(*inputs)) for inputs, _ in self._batches]
        values = [
            row_values(self._context, outputs, original, inputs, target)
            for outputs, original, (inputs, target) in zip(found, self._original, self._batches, strict=True)
        ]
        return float(np.concatenate(values).mean())


def _first(outputs: object) -> Tensor:
    return next(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))
