"""How much the whole network minds an error in one of its weights, measured one weight at a time."""

import math
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.graph.rerun import Rerun
from workers.engine.layers.base import Factorization, Form, Layer
from workers.engine.layers.substitute import Substitute, substitute

SIZES = (0.07, 0.2, 0.4, 0.7)
"""The forms that are tried, as shares of a layer's parameters: the range that budgets ask for."""
_LEAST = 1e-9  # of errors and divergences: below, they are rounding


@dataclass(frozen=True)
class Sensitivity:
    """What the network's outputs diverge by when one layer alone has an error, from a few measurements.

    `points` are (squared relative error of the weight, divergence), both rising. Between them the logarithms
    are interpolated; outside, the divergence is proportional to the error.
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, measured: Iterable[tuple[float, float]]) -> "Sensitivity":
        """From measurements in any order. Noise may not make a larger error the better one."""
        points: list[tuple[float, float]] = []
        for error, divergence in sorted((max(e, _LEAST), max(d, _LEAST)) for e, d in measured):
            if not points or error > points[-1][0]:
                points.append((error, max(divergence, points[-1][1] if points else 0.0)))
        return cls(tuple(points))

    def times(self, factor: float) -> "Sensitivity":
        """As if every divergence were `factor` times what it was measured to be."""
        return Sensitivity(tuple((error, factor * divergence) for error, divergence in self.points))

    def __call__(self, error: float) -> float:
        """The divergence that an error is expected to cause."""
        first, last = self.points[0], self.points[-1]
        if error <= first[0]:
            return first[1] * error / first[0]
        if error >= last[0]:
            return last[1] * error / last[0]
        above = bisect([e for e, _ in self.points], error)
        return _between(self.points[above - 1], self.points[above], error)


def _between(low: tuple[float, float], high: tuple[float, float], error: float) -> float:
    share = math.log(error / low[0]) / math.log(high[0] / low[0])
    return math.exp((1.0 - share) * math.log(low[1]) + share * math.log(high[1]))


def sensitivities(
    network: Network,
    fresh: Callable[[], Sequence[Layer]],
    divergence: Callable[[Callable[..., Any]], float],
    *,
    remembered: int = 0,
    sizes: Sequence[float] = SIZES,
) -> dict[str, Sensitivity]:
    """Divergence of the whole network as a function of each layer's error, by layer name.

    Each layer alone takes forms of a few sizes, and the network's divergence from the original is measured.
    Where a layer takes one, the forms are of a method whose best approximation is known in closed form: how
    an error came about hardly matters, and these cost least. Layers that have no smaller form are left out.

    Args:
        network: read only.
        fresh: the layers of a new copy of the network, which know their weightings; the copy is rewritten.
        divergence: of a network, as a function of its inputs, from the original, on rows that served for
            nothing else: the same tensors in every call.
        remembered: of how many batches all activations may be held. Then only what follows a layer is
            computed anew for it.
        sizes: which forms are tried.
    """
    frozen = network.copy()
    rerun = Rerun(frozen, remembered)
    divergence(rerun)
    found: dict[str, Sensitivity] = {}
    for copies in zip(*(fresh() for _ in sizes), strict=True):
        forms = dict(zip(_forms(copies[0], sizes), copies, strict=False))
        measured = [
            (form.error, max(0.0, replaced(frozen, rerun, substitute(layer, form)[1], divergence)))
            for form, layer in forms.items()
        ]
        if measured:
            found[copies[0].name] = Sensitivity.of(measured)
    return found


def _forms(layer: Layer, sizes: Sequence[float]) -> list[Form]:
    """The forms nearest to the sizes to be tried, each once."""
    probe = _probe(layer)
    if probe is None:
        return []
    for step in (8, 4, 2, 1):
        if forms := list(probe.forms(step)):
            wanted = [share * layer.parameters for share in sizes]
            nearest = [min(forms, key=lambda form: abs(form.parameters - size)) for size in wanted]
            return list(dict.fromkeys(nearest))
    return []


def _probe(layer: Layer) -> "Factorization[Any] | None":
    exact = [each for each in layer.methods.values() if each.exact]
    return next(iter([*exact, *layer.methods.values()]), None)


def replaced(
    frozen: Network,
    rerun: Rerun,
    tensors: Substitute,
    measure: Callable[[Callable[..., Any]], float],
) -> float:
    """What is measured of a network, as it is run again with some of its tensors replaced for a moment."""
    held = _swap(frozen, tensors)
    rerun.changed(tensors)
    try:
        return measure(rerun)
    finally:
        _swap(frozen, held)


def _swap(network: Network, tensors: Mapping[str, torch.Tensor]) -> Substitute:
    """Put values in and return those that were there; tied weights may have several paths."""
    stored = {path: surgery.stored(network.module, path) for path in tensors}
    before = {path: tensor.detach().clone() for path, tensor in stored.items()}
    for path, tensor in tensors.items():
        stored[path].data.copy_(tensor)
    return before
