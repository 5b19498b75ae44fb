"""One global allocation: which option each layer takes so that the whole meets a budget at the least loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Option:
    """What one choice for one layer costs, and what it loses. Any additive units."""

    cost: int
    loss: float


class UnreachableBudgetError(ValueError):
    """No combination of options fits; `least` is the least total cost there is."""

    def __init__(self, least: int) -> None:
        super().__init__(f"the least reachable cost is {least}")
        self.least = least


def allocate(layers: Sequence[Sequence[Option]], budget: int) -> list[int]:
    """Minimise Σ loss subject to Σ cost ≤ budget, one option per layer (multiple-choice knapsack).

    Walks the lower convex hulls of all layers by steepest loss per cost, which is the Lagrangian optimum for
    every budget on its way, then spends what is left on single upgrades. The loss exceeds the optimum by less
    than one hull step of one layer.

    Returns:
        the chosen index per layer.

    Raises:
        UnreachableBudgetError: the cheapest options together exceed the budget.
    """
    hulls = [_hull(options) for options in layers]
    chosen = [hull[0] for hull in hulls]
    left = budget - _total(layers, chosen)
    if left < 0:
        raise UnreachableBudgetError(budget - left)
    for layer, index in _steps(layers, hulls):
        extra = layers[layer][index].cost - layers[layer][chosen[layer]].cost
        if extra <= left:
            chosen[layer], left = index, left - extra
    return _spend(layers, chosen, left)


def front(options: Sequence[Option]) -> list[int]:
    """The indices of the undominated options: by rising cost, with strictly falling loss."""
    order = sorted(range(len(options)), key=lambda i: (options[i].cost, options[i].loss))
    kept: list[int] = []
    for index in order:
        if not kept or options[index].loss < options[kept[-1]].loss:
            kept.append(index)
    return kept


def _hull(options: Sequence[Option]) -> list[int]:
    """The undominated options on the lower convex hull of loss over cost, cheapest first."""
    hull: list[int] = []
    for index in front(options):
        while len(hull) > 1 and _slope(options, hull[-2], hull[-1]) > _slope(options, hull[-1], index):
            hull.pop()
        hull.append(index)
    return hull


def _slope(options: Sequence[Option], a: int, b: int) -> float:
    """Change of loss per cost from a to the dearer b: negative, rising along a convex hull."""
    return (options[b].loss - options[a].loss) / (options[b].cost - options[a].cost)


def _steps(layers: Sequence[Sequence[Option]], hulls: list[list[int]]) -> list[tuple[int, int]]:
    """Every (layer, next option) along the hulls, steepest first; convexity keeps a layer's own in order."""
    steps = [
        (_slope(layers[layer], a, b), layer, position, b)
        for layer, hull in enumerate(hulls)
        for position, (a, b) in enumerate(pairwise(hull))
    ]
    return [(layer, index) for _, layer, _, index in sorted(steps)]


def _spend(layers: Sequence[Sequence[Option]], chosen: list[int], left: int) -> list[int]:
    """While any single upgrade fits into what is left, take the one that gains most."""
    while True:
        upgrades = [
            (options[now].loss - option.loss, layer, index)
            for layer, (options, now) in enumerate(zip(layers, chosen, strict=True))
            for index, option in enumerate(options)
            if option.cost - options[now].cost <= left and option.loss < options[now].loss
        ]
        if not upgrades:
            return chosen
        _, layer, index = max(upgrades)
        left -= layers[layer][index].cost - layers[layer][chosen[layer]].cost
        chosen = [*chosen[:layer], index, *chosen[layer + 1 :]]


def _total(layers: Sequence[Sequence[Option]], chosen: Sequence[int]) -> int:
    return sum(options[index].cost for options, index in zip(layers, chosen, strict=True))
