"""Rank selections: from layers to one decision per layer."""

import math
from collections.abc import Callable, Mapping, Sequence

from app.contract.problem import Problem
from app.planning.allocation import Option, UnreachableBudgetError, allocate, front
from app.planning.errors import PlanningError
from app.planning.layers import STEPS, Factorization, Form, Layer, Rank, saves
from app.planning.prices import Counted, Price
from app.planning.rules import Decision, Rules, decision, settle

_TOLERANCE = 0.02  # of the budget


def by_budget(
    layers: Sequence[Layer], rules: Rules, *, price: Price, keep: float, total: int
) -> list[Decision]:
    """The least loss over all layers with the whole network's cost, by `price`, at most `keep` × `total`.

    A layer's loss is the divergence it is measured to cause; without measurements −log of the energy it
    retains, so that the sum is that of a product: no layer may collapse to save the others. Ranks are
    multiples of eight unless that misses the budget by more than 2 %.

    Raises:
        PlanningError: `budget_unreachable`, saying the least that is.
    """
    settled = {layer.name: settle(layer, rules) for layer in layers}
    free = [layer for layer in layers if settled[layer.name] is None]
    choices = [_Choices(layer, rules, price) for layer in free]
    elsewhere = total - sum(price.dense(layer) for layer in free)
    elsewhere += sum(_added(d, price) for d in settled.values() if d is not None)
    budget = math.floor(keep * total)
    try:
        chosen = _least_loss(choices, budget - elsewhere, tolerance=math.floor(_TOLERANCE * budget))
    except UnreachableBudgetError as error:
        raise PlanningError(_unreachable(keep, (elsewhere + error.least) / total, price.currency)) from error
    decided = {layer.name: decision(layer, form) for layer, form in zip(free, chosen, strict=True)}
    return [settled[layer.name] or decided[layer.name] for layer in layers]


def by_fraction(layers: Sequence[Layer], rules: Rules, *, price: Counted, fraction: float) -> list[Decision]:
    """Every layer keeps at most `fraction` of its own cost, with the least error that allows. Blind to
    which layers matter."""

    def choose(layer: Layer) -> Form | None:
        def within(form: Form) -> bool:
            return price.form(layer, form) <= fraction * price.dense(layer)

        return min(_aligned(layer, rules, price, within), key=lambda form: form.error, default=None)

    return _one_by_one(layers, rules, choose)


def by_energy(layers: Sequence[Layer], rules: Rules, *, price: Counted, energy: float) -> list[Decision]:
    """Every layer takes its cheapest form that retains `energy` of its squared norm. Blind to the budget."""

    def within(form: Form) -> bool:
        return 1.0 - form.error >= energy

    def choose(layer: Layer) -> Form | None:
        forms = _aligned(layer, rules, price, within)
        return min(forms, key=lambda form: price.form(layer, form), default=None)

    return _one_by_one(layers, rules, choose)


def by_signal(
    layers: Sequence[Layer],
    rules: Rules,
    *,
    price: Counted,
    signal: Mapping[str, Mapping[str, Rank]],
) -> list[Decision]:
    """Every layer takes the rank at which its signal stands out of noise, in the method where that is
    cheapest: `signal` has the rank by layer and method. Blind to the data and to the budget."""

    def choose(layer: Layer) -> Form | None:
        ranks, allowed = signal.get(layer.name, {}), rules.allowed(layer)
        forms = [layer.methods[each].form(ranks[each]) for each in allowed if each in ranks]
        smaller = [form for form in forms if saves(layer, form)]
        return min(smaller, key=lambda form: price.form(layer, form), default=None)

    return _one_by_one(layers, rules, choose)


def explicit(layers: Sequence[Layer], rules: Rules) -> list[Decision]:
    """The layers that a rule gives a rank take it; every other stays dense."""
    return _one_by_one(layers, rules, lambda _: None)


def _one_by_one(
    layers: Sequence[Layer], rules: Rules, choose: Callable[[Layer], Form | None]
) -> list[Decision]:
    return [settle(layer, rules) or decision(layer, choose(layer)) for layer in layers]


def _aligned(layer: Layer, rules: Rules, price: Counted, within: Callable[[Form], bool]) -> list[Form]:
    """The forms cheaper than dense that meet a condition, on the coarsest grid of ranks that has any."""
    for step in STEPS:
        found = [form for each in _allowed(layer, rules) for form in each.forms(step) if within(form)]
        if forms := [form for form in found if price.form(layer, form) < price.dense(layer)]:
            return forms
    return []


def _allowed(layer: Layer, rules: Rules) -> list[Factorization]:
    return [layer.methods[method] for method in rules.allowed(layer)]


class _Choices:
    """What one layer may become, with what each choice costs and loses."""

    def __init__(self, layer: Layer, rules: Rules, price: Price) -> None:
        self.layer = layer
        self._factorizations = _allowed(layer, rules)
        self._price = price

    def options(self, step: int) -> list[tuple[Option, Form | None]]:
        """Dense always, and the undominated forms on the grid of `step`."""
        offers = self._on_grid(step)
        options = [option for option, _ in offers]
        dense = Option(self._price.dense(self.layer), 0.0)
        return [(dense, None), *(offers[i] for i in front(options) if options[i].cost < dense.cost)]

    def _on_grid(self, step: int) -> list[tuple[Option, Form]]:
        forms = (form for each in self._factorizations for form in each.forms(step))
        priced = ((self._price.form(self.layer, form), form) for form in forms)
        return [(Option(cost, self._loss(form)), form) for cost, form in priced if cost is not None]

    def _loss(self, form: Form) -> float:
        """The predicted divergence where it was measured; else −log of the energy that is retained."""
        if self.layer.sensitivity is not None:
            return self.layer.sensitivity(form.error)
        return -math.log(max(1.0 - form.error, 1e-12))


def _least_loss(choices: Sequence[_Choices], budget: int, tolerance: int) -> list[Form | None]:
    """Finer ranks only where coarse ones miss the budget."""
    best: list[Form | None] | None = None
    failure = UnreachableBudgetError(0)
    for step in STEPS:
        try:
            best, left = _allocate(choices, budget, step)
        except UnreachableBudgetError as error:
            failure = error
            continue
        if left <= tolerance or not any(best):
            break
    if best is None:
        raise failure
    return best


def _allocate(choices: Sequence[_Choices], budget: int, step: int) -> tuple[list[Form | None], int]:
    """The forms chosen and what is left of the budget."""
    offers = [each.options(step) for each in choices]
    picks = allocate([[option for option, _ in offer] for offer in offers], budget)
    picked = [offer[pick] for offer, pick in zip(offers, picks, strict=True)]
    return [form for _, form in picked], budget - sum(option.cost for option, _ in picked)


def _added(decision: Decision, price: Price) -> int:
    """What a decision adds to the cost of the dense layer."""
    cost = price.form(decision.layer, decision.form) if decision.form else None
    return 0 if cost is None else cost - price.dense(decision.layer)


def _unreachable(keep: float, least: float, currency: str) -> Problem:
    return Problem.of(
        "budget_unreachable",
        f"No ranks keep {keep:.2%} of the {currency}; the least reachable is {least:.2%}.",
        hint="Raise `target.keep`, or loosen the layer rules.",
        field="target.keep",
    )
