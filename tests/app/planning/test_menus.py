"""Menus say of a layer what its weight would."""

from collections.abc import Callable

import pytest
from torch import nn

from app.contract.spec import DEFAULT_METHODS, JobSpec
from app.contract.summary import ModelSummary
from app.planning.menus import MenuLayer, menu_layers
from app.planning.plans import Total, make_plan
from tests.workers.engine.networks import (
    Convolutional,
    image_network,
    recurrent_network,
    seeded,
    token_network,
)
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network
from workers.engine.layers.find import find
from workers.engine.measure import cost
from workers.stages.inspect import describe, menus


def _convolutional(width: int = 24) -> Network:
    seeded()
    return image_network(Convolutional(width), size=16)


def _grouped() -> Network:
    seeded()
    return image_network(nn.Conv2d(16, 32, (3, 5), stride=2, groups=2), channels=16, size=12)


def _transposed() -> Network:
    seeded()
    return image_network(nn.ConvTranspose2d(16, 24, 3, stride=2), channels=16)


def _embedding() -> Network:
    seeded()
    return token_network(nn.Sequential(nn.Embedding(40, 24), nn.Linear(24, 24)))


def _stack() -> Network:
    return canonicalise(recurrent_network("lstm", width=12, hidden=16, num_layers=2, sequence_only=True))


NETWORKS: dict[str, Callable[[], Network]] = {
    "convolutional": _convolutional,
    "grouped": _grouped,
    "transposed": _transposed,
    "embedding": _embedding,
    "lstm": _stack,
    "gru": lambda: recurrent_network("gru", width=12, hidden=16),
}


def _menu_layers(network: Network) -> list[MenuLayer]:
    """As the API has them: through JSON."""
    layers = find(network)
    found = describe(network, layers).model_copy(update={"menus": menus(layers)})
    summary = ModelSummary.model_validate_json(found.model_dump_json())
    assert summary.menus is not None
    return menu_layers(summary.layers, summary.menus)


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_the_engines_for_every_rank_and_errors_for_those_on_the_menu(name: str) -> None:
    network = NETWORKS[name]()
    layers = {layer.name: layer for layer in find(network)}
    compared = 0
    for menu in _menu_layers(network):
        layer = layers[menu.name]
        assert (menu.parameters, menu.macs, menu.reason) == (layer.parameters, layer.macs, layer.reason)
        assert set(menu.methods) == set(layer.methods) & set(DEFAULT_METHODS)
        for method, offer in menu.methods.items():
            known = {form.rank: form.error for form in offer.forms(1)}
            for form in layer.methods[method].forms(1):
                seen = offer.form(form.rank)
                assert (seen.parameters, seen.macs) == (form.parameters, form.macs)
                assert seen.error >= form.error * (1 - 1e-5)
                assert form.rank not in known or seen.error == pytest.approx(form.error, rel=1e-5, abs=1e-9)
                compared += form.rank in known
    assert compared


@pytest.mark.parametrize("ranks", ["budget", "fraction", "energy"])
@pytest.mark.parametrize("of", ["macs", "parameters"])
def test_a_plan_from_menus_is_the_one_from_the_weights_where_menus_hold_every_form(
    ranks: str, of: str
) -> None:
    network = _convolutional(width=8)
    counted = cost.count(network)
    total = Total(counted.parameters, counted.macs)
    body = {"model": "mdl_" + "0" * 32, "target": {"of": of}, "ranks": {"selection": ranks}}
    spec = JobSpec.model_validate(body)
    by_weights = make_plan(find(network), total, spec, 0.5)
    by_menus = make_plan(_menu_layers(network), total, spec, 0.5)
    assert any(layer.rank for layer in by_weights.layers)
    assert [(each.method, each.rank) for each in by_menus.layers] == [
        (each.method, each.rank) for each in by_weights.layers
    ]
    assert (by_menus.parameters, by_menus.macs) == (by_weights.parameters, by_weights.macs)
