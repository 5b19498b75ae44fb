"""Bytes moved, against numbers that are worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.workers.engine.networks import (
    LENGTH,
    TiedTokens,
    image_network,
    recurrent_network,
    token_network,
    vector_network,
)
from workers.engine.errors import EngineError
from workers.engine.graph.network import Dimension, Input, Network, trace
from workers.engine.graph.scan import insert
from workers.engine.measure import cost
from workers.engine.measure.traffic import Traffic, count

F32 = 4


class Apply(nn.Module):
    """A function of the input alone."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def floats(weights: int, activations: int) -> Traffic:
    return Traffic(F32 * weights, F32 * activations)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (vector_network(nn.Linear(7, 5), 7), floats(5 * 7 + 5, 7 + 5)),
        (vector_network(nn.Linear(7, 5, bias=False), 3, 7), floats(5 * 7, 3 * 7 + 3 * 5)),
        (vector_network(nn.Sequential(nn.Linear(7, 5), nn.ReLU()), 7), floats(40, 7 + 5 + 5 + 5)),
        (image_network(nn.Conv2d(3, 6, 3, padding=1)), floats(3 * 6 * 9 + 6, 3 * 64 + 6 * 64)),
        (image_network(nn.Conv2d(3, 6, 3, stride=2, groups=3)), floats(6 * 9 + 6, 3 * 64 + 6 * 9)),
    ],
)
def test_a_call_reads_its_weights_and_inputs_and_writes_its_results(
    network: Network, expected: Traffic
) -> None:
    assert count(network) == expected
    assert count(network).total == expected.weights + expected.activations


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (lambda x: x.flatten(1), 0),
        (lambda x: x.transpose(1, 2)[:, :2], 0),
        (lambda x: F.dropout(x, training=False), 0),
        (lambda x: x.transpose(1, 2).contiguous(), 2 * 12),
        (lambda x: x.clone().relu_(), 4 * 12),
        (lambda x: x + x, 3 * 12),
        (lambda x: x[:, :2] + 1, 2 * 8),
        (lambda x: x.mean((1, 2)), 12 + 1),
        (lambda x: x + x[:, :1].expand(-1, 3, -1), 12 + 12 + 12),
        (lambda x: torch.cat([x, x], 1), 2 * 12 + 24),
    ],
)
def test_views_move_nothing_and_copies_do(function: Callable[[Tensor], Tensor], moved: int) -> None:
    assert count(vector_network(Apply(function), 3, 4)) == floats(0, moved)


def test_an_axis_that_repeats_a_weight_is_read_once() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.expand(4, 6)

    assert count(vector_network(Scaled(), 4, 6)) == floats(4, 24 + 24)


def test_a_lookup_reads_the_rows_and_a_tied_head_the_whole_table() -> None:
    words, width, length = 40, 16, LENGTH.example
    moved = count(token_network(TiedTokens(words, width, bias=False)))
    assert moved.weights == F32 * (length * width + words * width)
    looked_up, squashed, scored = length * width, 2 * length * width, length * (width + words)
    assert moved.activations == 8 * length + F32 * (looked_up + squashed + scored)


def test_half_precision_moves_half() -> None:
    shape = (Dimension("batch"), 7)
    half = trace(nn.Linear(7, 5).bfloat16().eval(), [Input("x", torch.bfloat16, shape)])
    assert count(half) == Traffic(2 * 40, 2 * 12)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False}])
def test_a_recurrent_operator_reads_its_hidden_weights_at_every_step(options: dict[str, bool]) -> None:
    width, hidden, steps = 5, 7, LENGTH.example
    moved = count(recurrent_network("lstm", sequence_only=True, width=width, hidden=hidden, **options))
    biases = 0 if options.get("bias") is False else 2
    stacks = 2 if options.get("bidirectional") else 1
    each = 4 * hidden * (width + steps * hidden + steps * biases)
    assert moved.weights == F32 * stacks * each
    states = 2 * stacks * hidden
    through_the_operator = steps * width + steps * stacks * hidden + 2 * states
    assert moved.activations == F32 * (through_the_operator + states)  # the initial states are made: zeros


def test_what_a_loop_reads_it_reads_at_every_step() -> None:
    network = vector_network(nn.Linear(4, 4, bias=False), 6, 4)
    graph = network.module.graph
    x, weight = (next(node for node in graph.nodes if node.op == op) for op in ("placeholder", "get_attr"))
    [call] = [node for node in graph.nodes if node.op == "call_function"]
    aten = torch.ops.aten

    def body(h: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
        sums = aten.add.Tensor(aten.linear.default(x, w), h)
        return [sums, aten.clone.default(sums)]

    with graph.inserting_before(call):
        first = graph.call_function(aten.select.int, (x, 1, 0))
        by_time = graph.call_function(aten.transpose.int, (x, 0, 1))
        [_, emitted] = insert(network.module, body, [first], [by_time], [weight])
    call.replace_all_uses_with(emitted)
    graph.erase_node(call)
    network.module.recompile()
    product, addition, copy = 4 + 4, 4 + 4 + 4, 4 + 4
    assert count(network) == floats(6 * 16, 6 * (product + addition + copy))


def test_shapes_that_do_not_fit_are_a_typed_error() -> None:

    network = vector_network(Apply(lambda x: x.relu()), 4)
    [call] = [node for node in network.module.graph.nodes if node.op == "call_function"]
    call.target, call.args = torch.ops.aten.view.default, (call.args[0], [3, 5])
    with pytest.raises(EngineError) as caught:
        count(network)
    assert caught.value.code == "shapes_unknown"


class Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(8, 8, bias=False), nn.Linear(8, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        def small(x: Tensor) -> Tensor:
            few: Tensor = self.small(x)
            return few.repeat(1, 4)

        chosen: Tensor = torch.cond(x.sum() > 0, small, self.large, (x,))
        return chosen


def test_of_a_choice_the_dearer_way_counts() -> None:
    network = vector_network(Choosing(), 8)
    assert cost.count(network).macs == 8 * 8
    assert count(network).weights == F32 * 8 * 8
