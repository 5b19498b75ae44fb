"""Rank selections to compare a budget's with. Each has one number, under which the cost rises, and meets a
budget by bisection of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.planning.allocation import Option, front
from app.planning.layers import STEPS
from app.planning.rules import Rules
from workers.engine.layers.base import Factorization, Form, Layer
from workers.engine.ranks.selection import signal_rank

SHARES = (0.1, 0.2, 0.35, 0.5, 0.7)
"""Of a layer's MACs: what the greedy selection scores of every layer."""
_TOLERANCE = 0.02  # of the budget, as for a budget's allocation
_HALVINGS = 50
_TILT = 1e-6  # of a score, from a share of 0 to one of 1: far less than one row's

Choice = dict[str, Form | None]  # by layer; None is dense
Curve = Sequence[tuple[float, float]]  # (share of a layer's MACs, score), by rising share
Choose = Callable[[float, int], Choice]


@dataclass(frozen=True)
class Rival:
    """Chooses by a number between `low` and `high` and a grid of ranks; those that round for themselves need
    but one."""

    choose: Choose
    low: float = 0.0
    high: float = 1.0
    steps: Sequence[int] = STEPS


class Menus:
    """The undominated forms of every layer that is free to choose, by rising MACs."""

    def __init__(self, layers: Sequence[Layer], rules: Rules) -> None:
        self.layers, self.rules = layers, rules
        self._known: dict[tuple[str, int], list[Form]] = {}

    def allowed(self, layer: Layer) -> list[Factorization[Any]]:
        """What the layer may take."""
        return [layer.methods[method] for method in self.rules.allowed(layer)]

    def forms(self, layer: Layer, step: int) -> list[Form]:
        """On the grid of `step`, or the next finer one that has any."""
        if (layer.name, step) not in self._known:
            found = [
                form for each in self.allowed(layer) for form in each.forms(step) if cheaper(layer, form)
            ]
            if not found and step > 1:
                return self.forms(layer, step // 2)
            order = front([Option(form.macs, form.error) for form in found])
            self._known[layer.name, step] = [found[i] for i in order]
        return self._known[layer.name, step]

    def within(self, layer: Layer, share: float, step: int) -> Form | None:
        """The form of the least error within a share of the layer's MACs, at finer ranks where coarse have
        none; the cheapest of all where none is.
        """
        forms = self.forms(layer, step)
        if share >= 1.0 or not forms:
            return None
        most = share * layer.macs + 0.5  # half a MAC for the rounding of shares
        fitting = next((form for form in reversed(forms) if form.macs <= most), None)
        if fitting is None and step > 1:
            return self.within(layer, share, step // 2)
        return fitting or forms[0]

    def reaching(self, layer: Layer, share: float, step: int) -> Form | None:
        """The cheapest form of no less than a share of the layer's MACs."""
        least = share * layer.macs - 0.5
        return next((form for form in self.forms(layer, step) if form.macs >= least), None)


def cheaper(layer: Layer, form: Form) -> bool:
    """Whether a form saves something, MACs among it: an embedding has none to save."""
    return layer.saves(form) and form.macs < layer.macs


def uniform(menus: Menus) -> Rival:
    """Every layer within the same fraction of its own MACs."""

    def choose(fraction: float, step: int) -> Choice:
        return {layer.name: menus.within(layer, fraction, step) for layer in menus.layers}

    return Rival(choose)


def energy(menus: Menus) -> Rival:
    """Every layer in the cheapest form that holds a share of its energy, as its weighting has it."""

    def cheapest(layer: Layer, share: float, step: int) -> Form | None:
        forms = menus.forms(layer, step)
        return next((form for form in forms if form.error <= 1.0 - share), None)

    def choose(share: float, step: int) -> Choice:
        return {layer.name: cheapest(layer, share, step) for layer in menus.layers}

    return Rival(choose)


def vbmf(menus: Menus) -> Rival:
    """Every layer at the ranks of its signal, all times one factor, in the method where that is cheapest
    (Nakajima et al. 2013)."""
    allowed = {layer: menus.allowed(layer) for layer in menus.layers}
    signals = {each: rank for some in allowed.values() for each in some if (rank := signal_rank(each))}

    def cheapest(layer: Layer, factor: float) -> Form | None:
        forms = [
            form
            for each in allowed[layer]
            if each in signals
            and cheaper(layer, form := each.form(scaled(signals[each], factor, each.max_rank)))
        ]
        return min(forms, key=lambda form: form.macs, default=None)

    def choose(factor: float, _: int) -> Choice:
        return {layer.name: cheapest(layer, factor) for layer in menus.layers}

    most = max((m / r for each, rank in signals.items() for r, m in zip(rank, each.max_rank, strict=True)))
    return Rival(choose, high=most, steps=(1,))


def scaled(rank: Sequence[int], factor: float, most: Sequence[int]) -> tuple[int, ...]:
    """Every number of a rank times a factor, rounded, from 1 to the most that it can be."""
    return tuple(max(1, min(m, round(factor * r))) for r, m in zip(rank, most, strict=True))


def greedy(menus: Menus, curves: Mapping[str, Curve]) -> Rival:
    """Every layer at the least share whose score, with it alone compressed, reaches one threshold: AIMET's
    selection, but for the way between the shares that were scored."""

    def choose(threshold: float, step: int) -> Choice:
        shares = {name: least_share(curve, threshold) for name, curve in curves.items()}
        return {
            layer.name: menus.reaching(layer, shares.get(layer.name, 1.0), step) for layer in menus.layers
        }

    lowest = min(score for curve in curves.values() for _, score in curve)
    highest = max(curve[-1][1] for curve in curves.values())
    return Rival(choose, low=lowest, high=highest + 2 * _TILT)


def least_share(curve: Curve, threshold: float) -> float:
    """The least share at which the score reaches a threshold; 1 where it never does.

    Between its points the score is linear. The last is the original's, at 1: nothing is taken for better
    than that, nor for worse than a smaller share. Where it would be level it rises a little, so that
    thresholds spend a budget that the scored shares would leave half unused: among shares that score alike
    the layers rise together.
    """
    shares, scores = np.array(curve).T
    level = np.minimum(np.maximum.accumulate(scores), scores[-1])
    return float(np.interp(threshold, level + _TILT * shares, shares))


def meet(rival: Rival, cost: Callable[[Choice], int], budget: int) -> Choice | None:
    """Its choice that costs most within a budget; None where all cost more. Finer ranks only where coarse
    ones miss the budget by more than 2 %."""
    best: Choice | None = None
    for step in rival.steps:

        def price(number: float, step: int = step) -> int:
            return cost(rival.choose(number, step))

        number = largest_within(price, budget, rival.low, rival.high)
        if number is None:
            continue
        found = rival.choose(number, step)
        best = found if best is None or cost(found) > cost(best) else best
        if budget - cost(best) <= _TOLERANCE * budget:
            break
    return best


def largest_within(cost: Callable[[float], int], budget: int, low: float, high: float) -> float | None:
    """The largest number from `low` to `high` whose cost, which never falls, is within a budget, by
    bisection; None where that of `low` is not."""
    if cost(high) <= budget:
        return high
    if cost(low) > budget:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low
