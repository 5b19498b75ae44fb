"""Which calls are layers, under which names, and why some stay dense."""

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.workers.engine.networks import (
    Convolutional,
    TiedTokens,
    image_network,
    recurrent_network,
    token_network,
    vector_network,
)
from workers.engine.formats import pt2
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import trace
from workers.engine.layers.find import find
from workers.engine.measure import cost


def test_layers_carry_the_users_names_in_the_order_of_the_graph() -> None:
    layers = find(image_network(Convolutional()))
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("stem.0", "conv2d"),
        ("block.0", "conv2d"),
        ("shortcut", "conv2d"),
        ("head", "linear"),
    ]
    ranks = [{name: each.max_rank for name, each in layer.methods.items()} for layer in layers]
    assert [found["tucker"] for found in ranks[:2]] == [(32, 3), (32, 32)]
    assert [found["svd"] for found in ranks[2:]] == [(32,), (4,)]


def test_the_macs_of_the_layers_are_those_of_the_network() -> None:
    network = image_network(Convolutional())
    assert sum(layer.macs for layer in find(network)) == cost.count(network).macs


def test_a_head_tied_to_an_embedding_is_one_layer_with_it() -> None:
    [layer] = find(token_network(TiedTokens(20, 8), length=5))
    assert (layer.kind, len(layer.sites)) == ("embedding", 2)
    assert (layer.parameters, layer.macs) == (20 * 8 + 20, 5 * 20 * 8)


class _Summed(nn.Module):
    """A weight that is summed up as well as multiplied by."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + self.linear.weight.sum()
        return out


def test_a_weight_of_two_kinds_of_operation_stays_dense_and_says_why() -> None:
    [layer] = find(vector_network(_Summed(), 8))
    assert layer.parameters == 8 * 8 + 8
    assert "more than one kind" in str(layer.reason)
    assert not layer.methods


class _Inside(nn.Module):
    """Layers in a choice, of which one is used outside as well."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.yes = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        out: Tensor = torch.cond(x.sum() > 0, self.yes, self.shared, (x,))
        return out


def test_the_weights_of_a_branch_stay_dense_and_are_counted() -> None:
    network = vector_network(_Inside(), 8)
    shared, inside = find(network)
    assert (shared.name, inside.name, inside.kind) == ("shared", "yes", "cond")
    assert "more than one kind" in str(shared.reason)
    assert "branch" in str(inside.reason)
    assert inside.parameters == 8 * 8 + 8
    assert sum(layer.macs for layer in (shared, inside)) == cost.count(network).macs == 2 * 8 * 8


def test_the_weights_of_a_loop_stay_dense_and_are_counted(tmp_path: Path) -> None:
    """A compressed recurrent network, uploaded again: what feeds its loop has forms, the loop has none."""
    network = canonicalise(recurrent_network("lstm"))
    for layer in find(network):
        layer.methods["svd"].rewrite((3,))
    surgery.prune(network.module)
    pt2.write(trace(network.module, network.inputs), tmp_path / "compressed.pt2")
    again = canonicalise(pt2.read(tmp_path / "compressed.pt2"))
    layers = {layer.name: layer for layer in find(again)}
    assert {name: bool(layer.methods) for name, layer in layers.items()} == {
        "rnn.weight_ih_l0_right": True,
        "rnn.weight_ih_l0_left": True,
        "rnn.weight_hh_l0_right": False,  # the first states are multiplied by it before the loop
        "rnn.weight_hh_l0_left": False,
    }
    loop = layers["rnn.weight_hh_l0_left"]
    assert (loop.kind, loop.parameters) == ("scan", 28 * 3)
    assert "loop" in str(loop.reason)
    assert sum(layer.macs for layer in layers.values()) == cost.count(again).macs
    before = cost.count(again).parameters
    layers["rnn.weight_ih_l0_left"].methods["svd"].rewrite((1,))
    surgery.prune(again.module)
    pt2.write(trace(again.module, again.inputs), tmp_path / "twice.pt2")
    twice = cost.count(pt2.read(tmp_path / "twice.pt2"))
    assert twice.parameters == before - 28 * 3 + 28 + 3


def test_a_product_by_something_else_than_a_matrix_stays_dense() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    [layer] = find(vector_network(Stack(), 1, 4, 8))
    assert (layer.kind, layer.macs) == ("matmul", 3 * 4 * 8 * 8)
    assert "not a matrix" in str(layer.reason)


def test_depthwise_convolutions_stay_dense_and_are_counted() -> None:
    [depthwise] = find(image_network(nn.Conv2d(8, 8, 3, groups=8), 8))
    assert (depthwise.groups, depthwise.methods) == (8, {})
    assert "depthwise" in str(depthwise.reason)


def test_weights_that_are_not_finite_are_never_decomposed() -> None:
    linear = nn.Linear(4, 4)
    with torch.no_grad():
        linear.weight[0, 0] = torch.nan
    [layer] = find(vector_network(linear, 4))
    assert "not finite" in str(layer.reason)


def test_a_scaled_addmm_stays_dense() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))
            self.bias = nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.weight, alpha=0.5)

    [layer] = find(vector_network(Scaled(), 4))
    assert "scaled" in str(layer.reason)
