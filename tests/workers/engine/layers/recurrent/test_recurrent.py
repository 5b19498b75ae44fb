"""Recurrent layers: every weight is one layer's, and every form of every layer computes what it says."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tests.workers.engine.networks import BATCH, LENGTH, draw_all, recurrent_network, seeded
from workers.engine.decomposition.whitening import root, whitened
from workers.engine.formats import onnx, pt2
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Input, Network, call_nodes, trace
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.graph.scan import SCAN
from workers.engine.layers.base import Factorization, Form, Layer, relative_error
from workers.engine.layers.find import find
from workers.engine.layers.weighting import Weighting
from workers.engine.measure import cost, reopen

Choice = tuple[Layer, Factorization[Any], tuple[int, ...]]


class Chain(nn.Module):
    """Two kinds of cells of different sizes, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.GRU(5, 7, batch_first=True)
        self.second = nn.LSTM(7, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sequence, last = self.first(x)
        return self.second(sequence)[0], last


def chain() -> Network:
    seeded()
    return trace(Chain().eval(), [Input("x", torch.float32, (BATCH, LENGTH, 5))])


CASES: dict[str, Callable[[], Network]] = {
    "lstm, two layers": lambda: recurrent_network("lstm", num_layers=2, dropout=0.1),
    "lstm, time first, given states": lambda: recurrent_network("lstm", batch_first=False, given=True),
    "gru, two layers, given states": lambda: recurrent_network("gru", num_layers=2, given=True),
    "gru, bidirectional, no bias": lambda: recurrent_network("gru", bidirectional=True, bias=False),
    "lstm, bidirectional, two layers": lambda: recurrent_network("lstm", bidirectional=True, num_layers=2),
    "rnn tanh, two layers, time first": lambda: recurrent_network("tanh", num_layers=2, batch_first=False),
    "rnn relu, bidirectional": lambda: recurrent_network("relu", bidirectional=True, sequence_only=True),
    "gru into a bidirectional lstm": chain,
}


@functools.cache
def _traced(name: str) -> Network:
    return canonicalise(CASES[name]())


def canonical(name: str) -> Network:
    return _traced(name).copy()


def most(factorization: Factorization[Any]) -> tuple[int, ...]:
    return factorization.max_rank


def half(factorization: Factorization[Any]) -> tuple[int, ...]:
    return tuple(max(1, rank // 2) for rank in factorization.max_rank)


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


def assert_same(network: Network, other: Network) -> None:
    for batch, length in ((1, 1), (3, 5)):
        inputs = draw_all(network, batch, length)
        with torch.no_grad():
            pairs = zip(tree_leaves(other(*inputs)), tree_leaves(network(*inputs)), strict=True)
        for found, expected in pairs:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def of_all(network: Network, method: str, rank: Callable[[Factorization[Any]], Any]) -> list[Choice]:
    layers = [layer for layer in find(network) if method in layer.methods]
    return [(layer, layer.methods[method], rank(layer.methods[method])) for layer in layers]


EVERY = pytest.mark.parametrize(
    ("case", "method"),
    [
        pytest.param(case, method, id=f"{case}: {method}")
        for case in CASES
        for method in sorted({method for layer in find(canonical(case)) for method in layer.methods})
    ],
)


@EVERY
def test_full_rank_forms_compute_the_same(case: str, method: str) -> None:
    network = canonical(case)
    copy = network.copy()
    other, _ = rewritten(copy, *of_all(copy, method, most))
    assert_same(network, other)


@EVERY
def test_forms_cost_what_a_count_says_lose_what_they_predict_and_train(case: str, method: str) -> None:
    network = canonical(case)
    before, choices = cost.count(network), of_all(network, method, half)
    dense = [(layer.parameters, layer.macs) for layer, *_ in choices]
    forms = []
    for layer, factorization, rank in choices:
        form, W = factorization.form(rank), layer.weight
        assert 0 < relative_error(W, factorization.rewrite(rank).weight) ** 2 <= form.error + 1e-6
        forms.append((form.parameters, form.macs))
    surgery.prune(network.module)
    other = trace(network.module, network.inputs)
    counted = cost.count(other)
    for place, total in enumerate((counted.parameters - before.parameters, counted.macs - before.macs)):
        assert total == sum(form[place] - was[place] for form, was in zip(forms, dense, strict=True))
    surgery.set_training(other.module, True)
    outputs = torch.cat([leaf.flatten() for leaf in tree_leaves(other(*draw_all(other, 3, 6)))])
    outputs.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in other.module.parameters())


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_layers_take_any_forms_together_in_any_order(data: st.DataObject) -> None:
    network = canonical(data.draw(st.sampled_from(sorted(CASES))))
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


@pytest.mark.parametrize("case", CASES)
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


@pytest.mark.parametrize(
    ("case", "name", "method"),
    [
        ("lstm, two layers", "rnn.weight_hh_l0", "svd"),
        ("lstm, bidirectional, two layers", "rnn.weight_ih_l1", "tucker"),
        ("gru, bidirectional, no bias", "rnn.weight_hh_l0_reverse", "cp"),
    ],
)
def test_artifacts_open_in_stock_torch_and_onnx_runtime_and_are_read_again(
    case: str, name: str, method: str, tmp_path: Path
) -> None:
    network = canonical(case)
    other, _ = rewritten(network, only(network, name, method, half))
    pt2.write(other, tmp_path / "model.pt2")
    onnx.write(other, tmp_path / "model.onnx")
    assert_same(other, pt2.read(tmp_path / "model.pt2"))
    inputs = draw_all(other, 3, 9)
    with torch.no_grad():
        outputs = tree_leaves(other(*inputs))
    np.savez(tmp_path / "inputs.npz", *inputs)
    np.savez(tmp_path / "outputs.npz", *outputs)
    for file_format in ("pt2", "onnx"):
        artifact = tmp_path / f"model.{file_format}"
        found = reopen.agree(artifact, file_format, tmp_path / "inputs.npz", tmp_path / "outputs.npz")
        assert found.n == len(outputs[0])


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
        "more than one call": trace(Twice().eval(), [Input("x", torch.float32, (BATCH, LENGTH, 5))]),
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
