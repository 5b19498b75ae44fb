"""Rank selections: from layers to one decision per layer.

They see the weights, and the data only through the layers' weightings.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from workers.engine.decomposition.spectrum import singular_energies
from workers.engine.decomposition.vbmf import evbmf_rank
from workers.engine.errors import EngineError
from workers.engine.layers.base import Factorization, Form, Layer
from workers.engine.ranks.allocation import Option, UnreachableBudgetError, allocate, front
from workers.engine.ranks.prices import Counted, Price

# Ranks are multiples of eight where they can be: 63 and 65 run at half the speed of 64.
_STEPS = (8, 4, 2, 1)
_TOLERANCE = 0.02  # of the budget
_TIMED = (0.0, 0.07, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)  # of a layer's MACs


@dataclass(frozen=True)
class Decision:
    """What happens to one layer: the form it takes, or None and the reason it stays dense."""

    layer: Layer
    form: Form | None
    reason: str | None = None


@dataclass(frozen=True)
class Rules:
    """What the user fixed: the methods allowed, and by layer name which stay dense, which have a method of
    their own whatever `methods` says, and which have a rank (one number stands for every mode)."""

    methods: frozenset[str]
    kept: frozenset[str] = frozenset()
    method: Mapping[str, str] = field(default_factory=dict)
    rank: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def allowed(self, layer: Layer) -> "list[Factorization[Any]]":
        """What the layer may take under these rules."""
        wanted = {self.method[layer.name]} if layer.name in self.method else self.methods
        return [factorization for method, factorization in layer.methods.items() if method in wanted]


def by_budget(
    layers: Sequence[Layer], rules: Rules, *, price: Price, keep: float, total: int
) -> list[Decision]:
    """The least loss over all layers with the whole network's cost, by `price`, at most `keep` × `total`.

    A layer's loss is the divergence it is measured to cause; without measurements −log of the energy it
    retains, so that the sum is that of a product: no layer may collapse to save the others. Ranks are
    multiples of eight unless that misses the budget by more than 2 %.

    Raises:
        EngineError: `budget_unreachable`, saying the least that is.
    """
    settled = {layer.name: _settle(layer, rules) for layer in layers}
    free = [layer for layer in layers if settled[layer.name] is None]
    menus = [_Menu(layer, rules.allowed(layer), price) for layer in free]
    elsewhere = total - sum(price.dense(layer) for layer in free)
    elsewhere += sum(_added(d, price) for d in settled.values() if d is not None)
    budget = math.floor(keep * total)
    try:
        chosen = _least_loss(menus, budget - elsewhere, tolerance=math.ceil(_TOLERANCE * budget))
    except UnreachableBudgetError as error:
        least = (elsewhere + error.least) / total
        raise EngineError(
            "budget_unreachable",
            f"No ranks keep {keep:.2%} of the {price.currency}; the least reachable is {least:.2%}.",
            hint="Raise `target.keep`, or loosen the layer rules.",
            field="target.keep",
        ) from error
    decided = {layer.name: _decision(layer, form) for layer, form in zip(free, chosen, strict=True)}
    return [settled[layer.name] or decided[layer.name] for layer in layers]


def worth_timing(layer: Layer, rules: Rules) -> list[Form]:
    """The forms that a budget of time may choose from: of every method allowed a handful, from a tenth of the
    dense layer's MACs upwards, each the best of its size; and the one that the user fixed."""
    if not layer.methods or layer.name in rules.kept:
        return []
    if layer.name in rules.rank:
        fixed = _at_rank(layer, rules)
        return [fixed] if fixed else []
    found = [form for each in rules.allowed(layer) for form in _spread(layer, each)]
    return list(dict.fromkeys(found))


def _spread(layer: Layer, factorization: Factorization[Any]) -> list[Form]:
    for step in _STEPS:
        if forms := sorted(factorization.forms(step), key=lambda form: form.macs):
            sizes = [(low * layer.macs, high * layer.macs) for low, high in pairwise(_TIMED)]
            within = [[form for form in forms if low < form.macs <= high] for low, high in sizes]
            return [min(each, key=lambda form: form.error) for each in within if each]
    return []


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


def by_vbmf(layers: Sequence[Layer], rules: Rules, *, price: Counted) -> list[Decision]:
    """Every layer takes the ranks at which its own matrices stand out of noise, in the method where that is
    cheapest (Nakajima et al. 2013; for Tucker, Kim et al. 2016). Blind to the data and to the budget."""

    def choose(layer: Layer) -> Form | None:
        ranks = {each: rank for each in rules.allowed(layer) if (rank := signal_rank(each))}
        forms = [form for each, rank in ranks.items() if layer.saves(form := each.form(rank))]
        return min(forms, key=lambda form: price.form(layer, form), default=None)

    return _one_by_one(layers, rules, choose)


def signal_rank(factorization: Factorization[Any]) -> tuple[int, ...]:
    """The rank of the signal for each number of the rank: 1 at least, of several groups the largest."""
    return tuple(
        max(1, *(evbmf_rank(singular_energies(M), (M.shape[0], M.shape[1])) for M in matrices))
        for matrices in factorization.unfoldings()
    )


def explicit(layers: Sequence[Layer], rules: Rules) -> list[Decision]:
    """The layers that a rule gives a rank take it; every other stays dense."""
    return _one_by_one(layers, rules, lambda _: None)


def _one_by_one(
    layers: Sequence[Layer], rules: Rules, choose: Callable[[Layer], Form | None]
) -> list[Decision]:
    return [_settle(layer, rules) or _decision(layer, choose(layer)) for layer in layers]


def _settle(layer: Layer, rules: Rules) -> Decision | None:
    """The decision that the layer itself or the user's rules leave no choice about."""
    if not layer.methods:
        return Decision(layer, None, layer.reason or "it has no cheaper form")
    if layer.name in rules.kept:
        return Decision(layer, None, "a layer rule keeps it dense")
    if not rules.allowed(layer):
        able = " and ".join(layer.methods)
        return Decision(layer, None, f"none of the methods asked for fits it: it takes {able}")
    if layer.name in rules.rank:
        return _decision(layer, _at_rank(layer, rules))
    return None


def _at_rank(layer: Layer, rules: Rules) -> Form | None:
    """The form at the user's rank with the least error; None where none is cheaper than dense."""
    wanted = rules.rank[layer.name]
    forms = []
    for factorization in rules.allowed(layer):
        rank = wanted * len(factorization.max_rank) if len(wanted) == 1 else wanted
        if factorization.fits(rank) and layer.saves(form := factorization.form(rank)):
            forms.append(form)
    return min(forms, key=lambda form: form.error, default=None)


def _decision(layer: Layer, form: Form | None) -> Decision:
    return Decision(layer, form, None if form else "no cheaper form is worth what it would lose")


def _aligned(layer: Layer, rules: Rules, price: Counted, within: Callable[[Form], bool]) -> list[Form]:
    """The forms cheaper than dense that meet a condition, on the coarsest grid of ranks that has any."""
    for step in _STEPS:
        found = [form for each in rules.allowed(layer) for form in each.forms(step) if within(form)]
        if forms := [form for form in found if price.form(layer, form) < price.dense(layer)]:
            return forms
    return []


class _Menu:
    """What one layer may become, with what each choice costs and loses."""

    def __init__(self, layer: Layer, factorizations: Sequence[Factorization[Any]], price: Price) -> None:
        self.layer = layer
        self._factorizations = factorizations
        self._price = price
        self._priced: dict[int, list[tuple[Option, Form]]] = {}

    def options(self, step: int) -> list[tuple[Option, Form | None]]:
        """Dense always, and the undominated forms on the grid of `step`."""
        offers = self._on_grid(step)
        options = [option for option, _ in offers]
        dense = Option(self._price.dense(self.layer), 0.0)
        return [(dense, None), *(offers[i] for i in front(options) if options[i].cost < dense.cost)]

    def _on_grid(self, step: int) -> list[tuple[Option, Form]]:
        if step not in self._priced:
            forms = (form for each in self._factorizations for form in each.forms(step))
            priced = ((self._price.form(self.layer, form), form) for form in forms)
            self._priced[step] = [
                (Option(cost, self._loss(form)), form) for cost, form in priced if cost is not None
            ]
        return self._priced[step]

    def _loss(self, form: Form) -> float:
        """The predicted divergence where it was measured; else −log of the energy that is retained."""
        if self.layer.sensitivity is not None:
            return self.layer.sensitivity(form.error)
        return -math.log(max(1.0 - form.error, 1e-12))


def _least_loss(menus: Sequence[_Menu], budget: int, tolerance: int) -> list[Form | None]:
    """Finer ranks only where coarse ones miss the budget."""
    best: list[Form | None] | None = None
    failure = UnreachableBudgetError(0)
    for step in _STEPS:
        try:
            best, left = _allocate(menus, budget, step)
        except UnreachableBudgetError as error:
            failure = error
            continue
        if left <= tolerance or not any(best):
            break
    if best is None:
        raise failure
    return best


def _allocate(menus: Sequence[_Menu], budget: int, step: int) -> tuple[list[Form | None], int]:
    """The forms chosen and what is left of the budget."""
    offers = [menu.options(step) for menu in menus]
    picks = allocate([[option for option, _ in offer] for offer in offers], budget)
    picked = [offer[pick] for offer, pick in zip(offers, picks, strict=True)]
    return [form for _, form in picked], budget - sum(option.cost for option, _ in picked)


def _added(decision: Decision, price: Price) -> int:
    """What a decision adds to the cost of the dense layer."""
    cost = price.form(decision.layer, decision.form) if decision.form else None
    return 0 if cost is None else cost - price.dense(decision.layer)
