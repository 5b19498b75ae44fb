"""Which calls are layers, under which names, and why some stay dense."""

import torch
from torch import Tensor, nn

from tests.workers.engine.networks import BATCH, Convolutional, image_network, vector_network
from workers.engine.graph.network import Input, trace
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


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(ids))
        return out


def test_a_weight_of_two_kinds_of_operation_stays_dense_and_says_why() -> None:
    network = trace(_Tied().eval(), (Input("ids", torch.int64, (BATCH, 5)),))
    [layer] = find(network)
    assert layer.parameters == 20 * 8
    assert "more than one kind" in str(layer.reason)
    assert not layer.methods


def test_grouped_convolutions_and_recurrent_layers_stay_dense_and_are_counted() -> None:
    [grouped] = find(image_network(nn.Conv2d(8, 8, 3, groups=8), 8))
    assert (grouped.groups, grouped.methods) == (8, {})
    assert "grouped" in str(grouped.reason)
    [recurrent] = find(vector_network(_Last(nn.GRU(6, 5, batch_first=True)), 4, 6))
    assert (recurrent.kind, recurrent.name) == ("gru", "rnn")
    assert recurrent.parameters == 3 * 5 * (6 + 5 + 2)
    assert recurrent.macs == 4 * 3 * 5 * (6 + 5)


class _Last(nn.Module):
    def __init__(self, rnn: nn.GRU) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x)[0]
        return out


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
