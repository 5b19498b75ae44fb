"""Rank selections: from layers to one decision per layer. All see the weights only, none the data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from workers.engine.errors import EngineError
from workers.engine.layers.base import Form, Layer
from workers.engine.ranks.allocation import Option, UnreachableBudgetError, allocate, front

Currency = Literal["macs", "parameters"]

# Ranks are multiples of eight where they can be: 63 and 65 run at half the speed of 64.
_STEPS = (8, 4, 2, 1)
_TOLERANCE = 0.02  # of the budget


@dataclass(frozen=True)
class Decision:
    """What happens to one layer: the form it takes, or None and the reason it stays dense."""

    layer: Layer
    form: Form | None
    reason: str | None = None


@dataclass(frozen=True)
class Rules:
    """What the user fixed: the methods allowed, and per layer name a rank, a method, or "keep"."""

    methods: frozenset[str]
    fixed: Mapping[str, tuple[int, ...]]
    kept: frozenset[str]
    allowed: frozenset[str]  # layers that a rule gave a method to, whatever `methods` says


def by_budget(
    layers: Sequence[Layer], rules: Rules, *, of: Currency, keep: float, total: int
) -> list[Decision]:
    """The least loss of energy over all layers with the whole network's cost at most `keep` × `total`.

    A layer's loss is −log of the energy it retains, so the sum is that of a product: no layer may collapse to
    save the others. Ranks are multiples of eight unless that misses the budget by more than 2 %.

    Raises:
        EngineError: `budget_unreachable`, saying the least that is.
    """
    settled = {layer.name: _settle(layer, rules) for layer in layers}
    free = [layer for layer in layers if settled[layer.name] is None]
    elsewhere = total - sum(_cost(layer, of) for layer in free)
    elsewhere += sum(_cost_of(d, of) - _cost(d.layer, of) for d in settled.values() if d is not None)
    budget = math.floor(keep * total)
    try:
        chosen = _least_loss(free, of, budget - elsewhere, tolerance=math.ceil(_TOLERANCE * budget))
    except UnreachableBudgetError as error:
        least = (elsewhere + error.least) / total
        raise EngineError(
            "budget_unreachable",
            f"No ranks keep {keep:.2%} of the {of}; the least reachable is {least:.2%}.",
            hint="Raise `target.keep`, or loosen the layer rules.",
            field="target.keep",
        ) from error
    decided = {layer.name: _decision(layer, form) for layer, form in zip(free, chosen, strict=True)}
    return [settled[layer.name] or decided[layer.name] for layer in layers]


def by_fraction(layers: Sequence[Layer], rules: Rules, *, of: Currency, fraction: float) -> list[Decision]:
    """Every layer keeps at most `fraction` of its own cost, with the least error that allows. Blind to
    which layers matter."""

    def choose(layer: Layer) -> Form | None:
        within = [form for form in _forms(layer) if _cost_of_form(form, of) <= fraction * _cost(layer, of)]
        return min(within, key=lambda form: form.error, default=None)

    return _one_by_one(layers, rules, choose)


def by_energy(layers: Sequence[Layer], rules: Rules, *, of: Currency, energy: float) -> list[Decision]:
    """Every layer takes its cheapest form that retains `energy` of its squared norm. Blind to the budget."""

    def choose(layer: Layer) -> Form | None:
        within = [form for form in _forms(layer) if 1.0 - form.error >= energy]
        return min(within, key=lambda form: _cost_of_form(form, of), default=None)

    return _one_by_one(layers, rules, choose)


def _one_by_one(
    layers: Sequence[Layer], rules: Rules, choose: Callable[[Layer], Form | None]
) -> list[Decision]:
    return [_settle(layer, rules) or _decision(layer, choose(layer)) for layer in layers]


def _settle(layer: Layer, rules: Rules) -> Decision | None:
    """The decision that the layer itself or the user's rules leave no choice about."""
    if layer.reason is not None or not layer.max_rank:
        return Decision(layer, None, layer.reason or "it has no low-rank form")
    if layer.name in rules.kept:
        return Decision(layer, None, "a layer rule keeps it dense")
    if layer.name in rules.fixed:
        form = layer.form(rules.fixed[layer.name])
        return Decision(layer, form) if layer.saves(form) else _decision(layer, None)
    if layer.method not in rules.methods and layer.name not in rules.allowed:
        return Decision(layer, None, f"the method it takes, {layer.method}, was not asked for")
    return None


def _decision(layer: Layer, form: Form | None) -> Decision:
    return Decision(layer, form, None if form else "no cheaper form is worth what it would lose")


def _forms(layer: Layer) -> list[Form]:
    """Aligned forms, or every form of a layer too small for those."""
    return next((forms for step in _STEPS if (forms := list(layer.forms(step)))), [])


def _least_loss(free: Sequence[Layer], of: Currency, budget: int, tolerance: int) -> list[Form | None]:
    """Finer ranks only where coarse ones miss the budget; narrow layers only where wide ones do not do."""
    best: list[Form | None] | None = None
    failure = UnreachableBudgetError(0)
    for narrow, step in product((False, True), _STEPS):
        if not narrow and step != _STEPS[0] and best is None:
            continue  # the wide layers alone would need ranks under eight: let the narrow ones help
        try:
            chosen, left = _allocate(free, of, budget, step, narrow)
        except UnreachableBudgetError as error:
            failure = error
            continue
        best = chosen
        if left <= tolerance or not any(chosen):
            break
    if best is None:
        raise failure
    return best


def _allocate(
    free: Sequence[Layer], of: Currency, budget: int, step: int, narrow: bool
) -> tuple[list[Form | None], int]:
    """The forms chosen and what is left of the budget."""
    menus = [_menu(layer, of, step if narrow or layer.worthwhile else None) for layer in free]
    picks = allocate([[option for option, _ in menu] for menu in menus], budget)
    picked = [menu[pick] for menu, pick in zip(menus, picks, strict=True)]
    return [form for _, form in picked], budget - sum(option.cost for option, _ in picked)


def _menu(layer: Layer, of: Currency, step: int | None) -> list[tuple[Option, Form | None]]:
    """What a layer may become: dense always, and its undominated forms."""
    forms = list(layer.forms(step)) if step else []
    options = [Option(_cost_of_form(form, of), _loss(form)) for form in forms]
    return [(Option(_cost(layer, of), 0.0), None), *((options[i], forms[i]) for i in front(options))]


def _loss(form: Form) -> float:
    return -math.log(max(1.0 - form.error, 1e-12))


def _cost(layer: Layer, of: Currency) -> int:
    return layer.macs if of == "macs" else layer.parameters


def _cost_of_form(form: Form, of: Currency) -> int:
    return form.macs if of == "macs" else form.parameters


def _cost_of(decision: Decision, of: Currency) -> int:
    return _cost_of_form(decision.form, of) if decision.form else _cost(decision.layer, of)
