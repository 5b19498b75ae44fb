"""Rank selections on real layers: the budget holds, rules are obeyed, dense is always a candidate."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from app.planning.errors import PlanningError
from app.planning.layers import Form, Layer
from app.planning.prices import Counted, Currency
from app.planning.rules import Decision, Rules
from app.planning.selections import by_budget, by_energy, by_fraction, by_signal, explicit
from tests.workers.engine.networks import (
    Convolutional,
    image_network,
    seeded,
    token_network,
    vector_network,
)
from workers.engine.graph.network import Network
from workers.engine.layers.find import find
from workers.engine.measure import cost

MACS, PARAMETERS = Counted("macs"), Counted("parameters")
ANY = Rules(frozenset({"svd", "tucker"}))


def _network() -> Network:
    seeded()
    return image_network(Convolutional(width=48), size=16)


def _after(decisions: Sequence[Decision], total: int, of: Currency) -> int:
    saved: list[int] = [
        getattr(decision.layer, of) - getattr(decision.form, of) for decision in decisions if decision.form
    ]
    return total - sum(saved)


def _loss(form: Form | None) -> float:
    return -math.log(1.0 - form.error) if form else 0.0


def _optimum(layers: Sequence[Layer], of: Currency, budget: float) -> float:
    """The least loss of any forms of any ranks within a budget, by exact dynamic programming over layers."""
    plans = [(0, 0.0)]
    for layer in layers:
        forms = [form for each in ANY.allowed(layer) for form in layer.methods[each].forms(1)]
        options = [(getattr(layer, of), 0.0), *((getattr(form, of), _loss(form)) for form in forms)]
        sums = sorted((cost + more, loss + worse) for cost, loss in plans for more, worse in options)
        plans = []
        for spent, lost in sums:
            if spent <= budget and (not plans or lost < plans[-1][1]):
                plans.append((spent, lost))
    return plans[-1][1]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["macs", "parameters"]), st.floats(0.15, 1.0))
@example("macs", 0.24469868618337787)  # one layer's ranks end far apart: spending the rest would lose more
def test_the_budget_is_never_exceeded_and_met_within_two_percent_or_nothing_loses_less(
    of: Currency, keep: float
) -> None:
    network = _network()
    total = getattr(cost.count(network), of)
    layers = find(network)
    decisions = by_budget(layers, ANY, price=Counted(of), keep=keep, total=total)
    after = _after(decisions, total, of)
    assert after <= keep * total
    if after < 0.98 * keep * total - 1:
        elsewhere = total - sum(getattr(layer, of) for layer in layers)
        lost = sum(_loss(decision.form) for decision in decisions)
        assert lost <= _optimum(layers, of, keep * total - elsewhere) + 1e-9


def test_a_budget_of_everything_leaves_every_layer_dense() -> None:
    network = _network()
    total = cost.count(network).macs
    decisions = by_budget(find(network), ANY, price=MACS, keep=1.0, total=total)
    assert all(decision.form is None and decision.reason for decision in decisions)


def test_an_unreachable_budget_says_the_least_that_is() -> None:
    network = vector_network(nn.Sequential(nn.Linear(64, 64), nn.Conv1d(8, 8, 3, groups=8)), 8, 64)
    total = cost.count(network).macs
    with pytest.raises(PlanningError) as raised:
        by_budget(find(network), ANY, price=MACS, keep=0.01, total=total)
    assert raised.value.problem.code == "budget_unreachable"
    least = (8 * 128 + 8 * 62 * 3) / total
    assert f"{least:.2%}" in raised.value.problem.detail


def test_rules_are_obeyed_and_the_budget_is_met_around_them() -> None:
    network = _network()
    total = cost.count(network).macs
    rules = Rules(
        frozenset({"tucker"}),
        kept=frozenset({"stem.0"}),
        method={"shortcut": "svd"},
        rank={"block.0": (16, 24)},
    )
    decisions = {d.layer.name: d for d in by_budget(find(network), rules, price=MACS, keep=0.6, total=total)}
    assert decisions["stem.0"].form is None
    fixed = decisions["block.0"].form
    assert fixed is not None
    assert fixed.rank == (16, 24)
    assert "svd" in str(decisions["head"].reason)
    assert _after(list(decisions.values()), total, "macs") <= 0.6 * total


def test_a_fixed_rank_that_would_cost_more_leaves_the_layer_dense() -> None:
    network = vector_network(nn.Linear(16, 16), 16)
    rules = Rules(frozenset({"svd"}), rank={"weight": (15,)})
    [decision] = by_energy(find(network), rules, price=MACS, energy=0.9)
    assert decision.form is None


def test_fraction_holds_for_every_layer_by_itself() -> None:
    decisions = by_fraction(find(_network()), ANY, price=PARAMETERS, fraction=0.4)
    formed = [decision for decision in decisions if decision.form]
    assert formed
    assert all(d.form and d.form.parameters <= 0.4 * d.layer.parameters for d in formed)


@pytest.mark.parametrize("energy", [0.5, 0.8])
def test_energy_is_retained_by_every_layer_at_the_least_cost(energy: float) -> None:
    decisions = by_energy(find(_network()), ANY, price=MACS, energy=energy)
    formed = [decision for decision in decisions if decision.form]
    assert formed
    for decision in formed:
        assert decision.form
        assert 1 - decision.form.error >= energy
        forms = [form for m in ANY.allowed(decision.layer) for form in decision.layer.methods[m].forms(8)]
        cheaper = [form for form in forms if form.macs < decision.form.macs]
        assert all(1 - form.error < energy for form in cheaper)


def test_the_rank_of_the_signal_is_taken_whatever_the_budget_in_the_cheapest_method() -> None:
    seeded()
    [layer] = find(image_network(nn.Conv2d(48, 64, 3, padding=1), size=8, channels=48))
    rules = Rules(frozenset({"tucker", "channel_svd"}))
    signal = {layer.name: {"tucker": (7, 4), "channel_svd": (30,)}}
    [decision] = by_signal([layer], rules, price=MACS, signal=signal)
    assert decision.form
    assert (decision.form.method, decision.form.rank) == ("tucker", (7, 4))


def test_a_layer_stays_dense_that_only_takes_methods_without_a_signal() -> None:
    seeded()
    rules = Rules(frozenset({"tensor_train"}))
    layers = find(vector_network(nn.Linear(64, 64), 64))
    [decision] = by_signal(layers, rules, price=MACS, signal={})
    assert decision.form is None
    assert decision.reason


def test_a_table_that_multiplies_nothing_may_still_be_smaller() -> None:
    seeded()
    layers = find(token_network(nn.Embedding(64, 32)))
    rules = Rules(frozenset({"svd"}), rank={layers[0].name: (4,)})
    [decision] = explicit(layers, rules)
    assert decision.form is not None
    assert decision.form.parameters < layers[0].parameters
