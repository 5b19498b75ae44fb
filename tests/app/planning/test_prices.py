"""What layers cost in each currency."""

import pytest
from torch import nn

from app.planning.errors import PlanningError
from app.planning.prices import Counted, LayerTimes, Timed
from app.planning.rules import Rules
from app.planning.selections import by_budget
from tests.workers.engine.networks import seeded, vector_network
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find

SVD = Rules(frozenset({"svd"}))


def _layers() -> list[Layer]:
    seeded()
    module = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
    return find(vector_network(module, 64))


def test_counts_are_the_layers_and_the_forms_own() -> None:
    layer = _layers()[0]
    form = layer.methods["svd"].form((8,))
    assert Counted("macs").dense(layer) == layer.macs
    assert Counted("parameters").form(layer, form) == form.parameters


def test_a_time_is_what_a_form_adds_and_slow_or_unknown_forms_are_out() -> None:
    layer = _layers()[0]
    fast, slow, unknown = (layer.methods["svd"].form((rank,)) for rank in (8, 16, 24))
    price = Timed({layer.name: LayerTimes(1.0, {("svd", (8,)): 0.4, ("svd", (16,)): 0.95})})
    assert price.dense(layer) == 0
    assert price.form(layer, fast) == -600_000
    assert price.form(layer, slow) is None  # under 1.1 times as fast
    assert price.form(layer, unknown) is None


def test_a_budget_of_time_is_met_by_the_forms_that_were_timed() -> None:
    layers = _layers()
    times = {layer.name: LayerTimes(1.0, {("svd", (8,)): 0.3, ("svd", (16,)): 0.5}) for layer in layers}
    decisions = by_budget(layers, SVD, price=Timed(times), keep=0.6, total=2_500_000)
    assert all(decision.form for decision in decisions)
    spent = sum(times[d.layer.name].of(d.form) or 0.0 for d in decisions if d.form)
    assert 0.5 + spent <= 0.6 * 2.5
    with pytest.raises(PlanningError, match="44"):
        by_budget(layers, SVD, price=Timed(times), keep=0.3, total=2_500_000)
