"""Recurrent layers: every weight is one layer's, and layers take any forms beside each other."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.workers.engine.layers.cells import RECURRENT_CASES, assert_same, half, most, network_of
from tests.workers.engine.networks import draw_all, recurrent_network, sequence_network
from workers.engine.decomposition.whitening import root, whitened
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network, call_nodes, trace
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.graph.scan import SCAN
from workers.engine.layers.base import Factorization, Form, Layer
from workers.engine.layers.find import find
from workers.engine.layers.weighting import Weighting
from workers.engine.measure import cost

Choice = tuple[Layer, Factorization[Any], tuple[int, ...]]


def canonical(case: str) -> Network:
    return network_of(case).copy()


def rewritten(network: Network, *choices: Choice) -> tuple[Network, list[Form]]:
    """The network traced anew after its layers have taken these forms, in this order."""
    forms = []
    for _, factorization, rank in choices:
        forms.append(factorization.form(rank))
        factorization.rewrite(rank)
    surgery.prune(network.module)
    return trace(network.module, network.inputs), forms


def only(network: Network, name: str, method: str, rank: Callable[[Factorization[Any]], Any]) -> Choice:
    [layer] = [layer for layer in find(network) if layer.name == name]
    return layer, layer.methods[method], rank(layer.methods[method])


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_layers_take_any_forms_together_in_any_order(data: st.DataObject) -> None:
    network = canonical(data.draw(st.sampled_from(sorted(RECURRENT_CASES))))
    copy = network.copy()
    choices: list[Choice] = []
    for layer in data.draw(st.permutations(find(copy))):
        factorization = layer.methods[data.draw(st.sampled_from(sorted(layer.methods)))]
        choices.append((layer, factorization, most(factorization)))
    other, forms = rewritten(copy, *choices)
    counted = cost.count(other)
    assert counted.parameters == sum(form.parameters for form in forms)
    assert counted.macs == sum(form.macs for form in forms)
    assert_same(network, other)


@pytest.mark.parametrize("case", RECURRENT_CASES)
def test_every_weight_belongs_to_exactly_one_layer(case: str) -> None:
    network = canonical(case)
    layers, counted = find(network), cost.count(network)
    assert sum(layer.parameters for layer in layers) == counted.parameters
    assert sum(layer.macs for layer in layers) == counted.macs
    assert len({layer.name for layer in layers}) == len(layers)


def test_layers_are_parted_by_the_vector_that_they_multiply() -> None:
    def shapes(network: Network) -> dict[str, tuple[int, ...]]:
        return {layer.name: tuple(layer.weight.shape) for layer in find(canonicalise(network))}

    assert shapes(recurrent_network("lstm", num_layers=2)) == {
        "rnn.weight_ih_l0": (28, 5),
        "rnn.weight_hh_l0": (28 + 28, 7),
        "rnn.weight_hh_l1": (28, 7),
    }
    assert shapes(recurrent_network("gru", num_layers=2, bidirectional=True)) == {
        "rnn.weight_ih_l0": (42, 5),
        "rnn.weight_hh_l0": (21, 7),
        "rnn.weight_hh_l0_reverse": (21, 7),
        "rnn.weight_ih_l1": (42, 14),
        "rnn.weight_hh_l1": (21, 7),
        "rnn.weight_hh_l1_reverse": (21, 7),
    }


def test_factors_of_what_multiplies_inputs_leave_torchs_own_operator() -> None:
    for name, method in (("rnn.weight_ih_l0", "svd"), ("rnn.weight_hh_l0", "input_svd")):
        network = canonical("lstm, two layers")
        other, _ = rewritten(network, only(network, name, method, half))
        targets = [node.target for node in call_nodes(other.module)]
        assert [target in RECURRENT for target in targets].count(True) == 2
        assert SCAN not in targets


def test_a_shared_projection_is_handed_to_the_next_layer_which_stays_torchs_own() -> None:
    network = canonical("lstm, two layers")
    other, _ = rewritten(network, only(network, "rnn.weight_hh_l0", "svd", lambda _: (3,)))
    [call] = [node for node in call_nodes(other.module) if node.target in RECURRENT]
    weight = surgery.tensor_of(other.module, surgery.arguments(call)["params"][0])
    assert weight.shape == (28, 3)
    assert [node.target for node in call_nodes(other.module)].count(SCAN) == 1


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(self.rnn(x)[0])[0]
        return out


def test_calls_that_cannot_be_taken_apart_stay_dense_and_say_why() -> None:
    broken = canonical("gru, bidirectional, no bias")
    with torch.no_grad():
        broken.module.get_parameter("rnn.weight_hh_l0")[0, 0] = torch.nan
    reasons = {
        "projected": recurrent_network("projected"),
        "stack": recurrent_network("gru", num_layers=2),
        "more than one call": sequence_network(Twice(), 5),
        "not finite": broken,
    }
    for reason, network in reasons.items():
        for layer in find(network):
            assert layer.methods == {}
            assert reason in str(layer.reason)


def test_a_weighting_lowers_the_error_where_the_inputs_are() -> None:
    C = torch.randn(7, 7).double()
    right = root(C @ C.T / 7)
    for name, method in (("rnn.weight_hh_l0", "svd"), ("rnn.weight_hh_l0", "tucker")):
        errors = []
        for weighting in (Weighting(), Weighting(right=right)):
            network = canonical("lstm, two layers")
            layer, factorization, rank = only(network, name, method, half)
            layer.weigh = lambda weighting=weighting: weighting  # type: ignore[misc]
            W, form = layer.weight, factorization.form(rank)
            lost = whitened(W - factorization.rewrite(rank).weight, right, None).square().sum()
            errors.append(float(lost / whitened(W, right, None).square().sum()))
        assert errors[1] < errors[0]
        assert errors[1] <= form.error + 1e-6


def test_the_vectors_of_a_hidden_layer_are_its_states() -> None:
    network = canonical("gru, bidirectional, no bias")
    x = draw_all(network, 2, 4)[0]
    sequence = network(x)[0]
    arguments: dict[str, Any] = {}
    for node in call_nodes(network.module):
        if node.target in RECURRENT:
            values = surgery.arguments(node)
            weights = [surgery.tensor_of(network.module, weight) for weight in values["params"]]
            arguments = {**values, "input": x, "hx": torch.zeros(2, 2, 7), "params": weights}
    inputs, forward, reverse = find(network)
    assert torch.equal(inputs.vectors(arguments), x.flatten(0, 1))
    assert torch.equal(forward.vectors(arguments), sequence[..., :7].flatten(0, 1))
    assert torch.equal(reverse.vectors(arguments), sequence[..., 7:].flatten(0, 1))
