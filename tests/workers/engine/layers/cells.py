"""Every kind of layer in small networks, and every method that it may take: the cells of docs/methods.md."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.utils._pytree import tree_leaves

from tests.workers.engine.networks import (
    BATCH,
    LENGTH,
    Attention,
    ConstantProduct,
    HuggingFaceLinear,
    TiedTokens,
    draw_all,
    image_network,
    recurrent_network,
    seeded,
    sequence_network,
    token_network,
    vector_network,
)
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Dimension, Input, Network, trace
from workers.engine.layers.base import Factorization, Form, relative_error
from workers.engine.layers.find import find
from workers.engine.measure import cost

Ranks = Callable[[Factorization[Any]], tuple[int, ...]]
WIDTH, HEADS = 24, 3
CONTEXT = Dimension("context", 1, 64, example=5)


class Chain(nn.Module):
    """Two kinds of cells of different sizes, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.GRU(5, 7, batch_first=True)
        self.second = nn.LSTM(7, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sequence, last = self.first(x)
        return self.second(sequence)[0], last


def cross_attention() -> Network:
    """To a context of another length."""
    axes = {"x": LENGTH, "context": CONTEXT}
    inputs = [Input(name, torch.float32, (BATCH, axis, WIDTH)) for name, axis in axes.items()]
    return trace(Attention(WIDTH, HEADS).eval(), inputs)


RECURRENT_CASES: dict[str, Callable[[], Network]] = {
    "lstm, two layers": lambda: recurrent_network("lstm", num_layers=2, dropout=0.1),
    "lstm, time first, given states": lambda: recurrent_network("lstm", batch_first=False, given=True),
    "gru, two layers, given states": lambda: recurrent_network("gru", num_layers=2, given=True),
    "gru, bidirectional, no bias": lambda: recurrent_network("gru", bidirectional=True, bias=False),
    "lstm, bidirectional, two layers": lambda: recurrent_network("lstm", bidirectional=True, num_layers=2),
    "rnn tanh, two layers, time first": lambda: recurrent_network("tanh", num_layers=2, batch_first=False),
    "rnn relu, bidirectional": lambda: recurrent_network("relu", bidirectional=True, sequence_only=True),
    "gru into a bidirectional lstm": lambda: sequence_network(Chain(), 5),
}
ATTENTION_CASES: dict[str, Callable[[], Network]] = {
    "attention to itself": lambda: sequence_network(Attention(WIDTH, HEADS), WIDTH),
    "attention without biases": lambda: sequence_network(Attention(WIDTH, HEADS, bias=False), WIDTH),
    "attention, masked": lambda: sequence_network(Attention(WIDTH, HEADS, masked=True), WIDTH),
    "attention to a context": cross_attention,
}
CASES: dict[str, Callable[[], Network]] = {
    "linear": lambda: vector_network(nn.Linear(12, 7), 12),
    "linear without bias on tokens": lambda: vector_network(nn.Linear(12, 7, bias=False), 5, 12),
    "addmm": lambda: vector_network(HuggingFaceLinear(9, 14), 9),
    "conv1d": lambda: vector_network(nn.Conv1d(6, 8, 5, stride=2, padding=2), 6, 11),
    "conv2d": lambda: image_network(nn.Conv2d(6, 10, 3, padding=1), 6),
    "conv2d strided, dilated": lambda: image_network(nn.Conv2d(6, 10, 3, 2, 2, dilation=2, bias=False), 6),
    "conv2d not square": lambda: image_network(nn.Conv2d(5, 4, (1, 5), padding=(0, 2)), 5),
    "conv2d padding same": lambda: image_network(nn.Conv2d(6, 10, 3, padding="same"), 6),
    "conv3d": lambda: vector_network(nn.Conv3d(4, 6, 3, padding=1), 4, 5, 5, 5),
    "conv2d 1×1": lambda: image_network(nn.Conv2d(9, 12, 1), 9),
    "conv2d 1×1 strided, padded": lambda: image_network(nn.Conv2d(9, 12, 1, 2, 1), 9),
    "matmul": lambda: vector_network(ConstantProduct(9, 14), 5, 9),
    "embedding": lambda: token_network(nn.Embedding(11, 6)),
    "embedding with a padding index": lambda: token_network(nn.Embedding(11, 6, padding_idx=2)),
    "embedding tied to the head": lambda: token_network(TiedTokens(11, 6)),
    "embedding tied to a head without bias": lambda: token_network(TiedTokens(11, 6, bias=False)),
    "conv1d 1": lambda: vector_network(nn.Conv1d(9, 12, 1), 9, 6),
    "conv3d 1×1×1": lambda: vector_network(nn.Conv3d(9, 12, 1), 9, 3, 3, 3),
    "conv2d padding valid, strided": lambda: image_network(nn.Conv2d(6, 10, (3, 2), 2, "valid"), 6),
    "conv2d of three channels": lambda: image_network(nn.Conv2d(3, 16, 5, padding=2), 3),
    "conv2d into one channel": lambda: image_network(nn.Conv2d(8, 1, 3), 8),
    "conv1d grouped": lambda: vector_network(nn.Conv1d(6, 9, 3, 2, groups=3), 6, 11),
    "conv2d grouped": lambda: image_network(nn.Conv2d(8, 12, 3, padding="same", groups=2, bias=False), 8),
    "conv2d 1×1 grouped": lambda: image_network(nn.Conv2d(8, 12, 1, 2, groups=2), 8),
    "conv1d depthwise": lambda: vector_network(nn.Conv1d(6, 6, 3, groups=6), 6, 9),
    "conv2d depthwise": lambda: image_network(nn.Conv2d(8, 16, 3, groups=8), 8),
    "conv3d depthwise": lambda: vector_network(nn.Conv3d(4, 4, 1, groups=4), 4, 3, 3, 3),
    "conv3d grouped": lambda: vector_network(nn.Conv3d(4, 8, (1, 3, 2), groups=2), 4, 4, 4, 4),
    "conv_transpose1d": lambda: vector_network(nn.ConvTranspose1d(6, 8, 3, 2, 1, 1), 6, 5),
    "conv_transpose1d 1 strided": lambda: vector_network(nn.ConvTranspose1d(9, 7, 1, 2), 9, 5),
    "conv_transpose2d": lambda: image_network(nn.ConvTranspose2d(6, 9, (3, 4), (2, 3), 1, (1, 2)), 6),
    "conv_transpose2d dilated": lambda: image_network(nn.ConvTranspose2d(6, 9, 3, dilation=2, bias=False), 6),
    "conv_transpose2d grouped": lambda: image_network(nn.ConvTranspose2d(8, 6, 3, 2, groups=2), 8),
    "conv_transpose2d 1×1 strided": lambda: image_network(nn.ConvTranspose2d(9, 7, 1, 2), 9),
    "conv_transpose3d": lambda: vector_network(nn.ConvTranspose3d(4, 5, 3, 2), 4, 3, 3, 3),
    "conv_transpose1d depthwise": lambda: vector_network(nn.ConvTranspose1d(6, 6, 3, groups=6), 6, 9),
    "conv_transpose2d depthwise": lambda: image_network(nn.ConvTranspose2d(8, 8, 2, groups=8), 8),
    "conv_transpose3d depthwise": lambda: vector_network(nn.ConvTranspose3d(4, 4, 2, groups=4), 4, 3, 3, 3),
    "conv_transpose3d 1×1×1": lambda: vector_network(nn.ConvTranspose3d(9, 7, 1), 9, 3, 3, 3),
    **RECURRENT_CASES,
    **ATTENTION_CASES,
}


@functools.cache
def network_of(case: str) -> Network:
    """The same network for all tests, in the form that jobs work on: none may change it."""
    seeded()
    return canonicalise(CASES[case]())


def methods_of(network: Network) -> list[str]:
    """Every method that some layer takes."""
    return list(dict.fromkeys(method for layer in find(network, joint=True) for method in layer.methods))


CELLS = [(case, method) for case in CASES for method in methods_of(network_of(case))]


def most(factorization: Factorization[Any]) -> tuple[int, ...]:
    """The largest rank."""
    return factorization.max_rank


def half(factorization: Factorization[Any]) -> tuple[int, ...]:
    """Half of it."""
    return tuple(max(1, rank // 2) for rank in factorization.max_rank)


@dataclass(frozen=True)
class Change:
    """What one layer became: its dense cost, the form as predicted, the error of its weight as measured."""

    parameters: int
    macs: int
    form: Form
    error: float


def edited(network: Network, method: str, rank: Ranks) -> tuple[Network, list[Change]]:
    """A copy in which every layer that can has taken a method."""
    copy = network.copy()
    layers = [layer for layer in find(copy, joint=True) if method in layer.methods]
    dense = [(layer.parameters, layer.macs) for layer in layers]
    changes = []
    for layer, before in zip(layers, dense, strict=True):
        factorization, W = layer.methods[method], layer.weight.clone()
        form = factorization.form(rank(factorization))
        error = relative_error(W, factorization.rewrite(form.rank).weight)
        changes.append(Change(*before, form, error))
    surgery.prune(copy.module)
    return copy, changes


def rewritten(network: Network, method: str, rank: Ranks) -> tuple[Network, list[Change]]:
    """The same, traced anew."""
    copy, changes = edited(network, method, rank)
    return trace(copy.module, copy.inputs), changes


@functools.cache
def halved(case: str, method: str) -> tuple[Network, list[Change]]:
    """A cell at half of its largest rank: none may change it."""
    return rewritten(network_of(case), method, half)


def together(networks: Sequence[Network]) -> Network:
    """Networks side by side as one: what is slow to write and to open is done once for all."""
    graph, parts, inputs = Graph(), nn.Module(), list[Input]()
    nodes = []
    for place, network in enumerate(networks):
        parts.add_module(f"part_{place}", network.module)
        own = [replace(spec, name=f"{spec.name}_{place}") for spec in network.inputs]
        nodes.append([graph.placeholder(spec.name) for spec in own])
        inputs += own
    graph.output([graph.call_module(f"part_{place}", tuple(own)) for place, own in enumerate(nodes)])
    return trace(GraphModule(parts, graph), inputs)


def outputs(module: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """All results of a call, without a graph."""
    with torch.no_grad():
        leaves: list[Tensor] = tree_leaves(module(*inputs))
    return leaves


def assert_same(network: Network, other: Network) -> None:
    """That both compute the same, at every batch and length."""
    for batch, length in ((1, 1), (3, 5), (4, 9)):
        inputs = draw_all(network, batch, length)
        for found, expected in zip(outputs(other, inputs), outputs(network, inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def assert_costs(network: Network, other: Network, changes: Sequence[Change]) -> None:
    """That an independent count of both graphs differs by what the forms say."""
    before, after = cost.count(network), cost.count(other)
    assert after.parameters - before.parameters == sum(c.form.parameters - c.parameters for c in changes)
    assert after.macs - before.macs == sum(c.form.macs - c.macs for c in changes)
