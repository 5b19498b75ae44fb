"""The shapes that a network is measured at, and traced with."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.workers.engine.networks import recurrent_network
from workers.engine.graph import surgery
from workers.engine.graph.called import export_as_called
from workers.engine.graph.network import Dimension, Input, Network, call_nodes, dynamic_shapes, trace
from workers.engine.signature import Place, Signature


def network_of(*shapes: tuple[int | Dimension, ...]) -> Network:
    inputs = tuple(Input(f"x{i}", torch.float32, shape) for i, shape in enumerate(shapes))
    return Network(torch.fx.symbolic_trace(nn.Identity()), inputs)


def test_the_batch_is_the_first_first_axis_that_varies() -> None:
    batch, length = Dimension("b"), Dimension("t", example=7)
    assert network_of((4, length), (batch, length)).batch_symbol == "b"
    assert network_of((), (4, length)).batch_symbol is None


def test_the_batch_is_as_wanted_within_what_the_network_takes() -> None:
    batch = Dimension("b", minimum=4, maximum=32)
    assert [network_of((batch, 3)).batch_size(wanted) for wanted in (1, 8, 64)] == [4, 8, 32]
    assert network_of((5,), (batch, 3)).batch_size(64) == 32
    assert network_of((6, 3)).batch_size(64) == 6


@given(st.integers(1, 40), st.integers(1, 90), st.none() | st.integers(0, 90), st.integers(1, 200))
def test_a_length_near_another_is_one_that_the_axis_has(
    multiple: int, minimum: int, more: int | None, length: int
) -> None:
    maximum = None if more is None else minimum + multiple + more
    axis = Dimension("h", minimum, maximum, multiple=multiple)
    near = axis.near(length)
    assert near % multiple == 0
    assert minimum <= near <= (near if maximum is None else maximum)
    assert near == length or near - length < multiple or near - minimum < multiple or maximum is not None
    assert axis.near(near) == near


def test_an_axis_of_multiples_is_traced_and_counted_by_such() -> None:
    height = Dimension("h", 64, 640, 64, multiple=32)
    network = trace(_Sum(), [Input("a", torch.float32, (B, height)), Input("b", torch.float32, (B, height))])
    assert network.sizes(2) == ((2, 64), (2, 64))
    assert str(height) == "32*h"
    [shape, _] = dynamic_shapes(network.inputs)
    assert shape is not None
    assert str(shape[1].__name__) == "32*h"


def test_examples_of_a_mask_are_ones() -> None:
    inputs = (Input("ids", torch.int64, (Dimension("b"), 3)), Input("mask", torch.bool, (Dimension("b"), 3)))
    ids, mask = Network(torch.fx.symbolic_trace(nn.Identity()), inputs).examples(2)
    assert not ids.any()
    assert mask.all()
    assert mask.dtype is torch.bool


def test_sizes_put_the_batch_as_asked_and_other_axes_at_their_example() -> None:
    batch, length = Dimension("b", minimum=2, example=9), Dimension("t", example=7)
    network = network_of((batch, length, 3), (length, batch), (5,))
    assert network.sizes() == ((1, 7, 3), (7, 1), (5,))
    assert network.sizes(16) == ((16, 7, 3), (7, 16), (5,))


class _Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        return a.sum() + b.sum() + (0 if c is None else c)


B, T = Dimension("b"), Dimension("t")


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(B, 3), (B, 5)], [0, 0]),
        ([(B, T), (2, B, 6)], [0, 1]),  # states, layers first
        ([(2, B, 6), (B, T), ()], [1, 0, None]),
        ([(1, 5), (2, 1, 6)], [0, 1]),  # exported for one row
        ([(2, 1, 6), (1, 5)], [1, 0]),
        ([(B, 3), (3,)], [0, None]),  # one table for all rows
        ([(T, B, 3), (1, B, 6)], [0, None]),  # time is what runs
    ],
)
def test_rows_go_where_inputs_are_as_long_as_the_first_that_all_have(
    shapes: list[tuple[int | Dimension, ...]], axes: list[int | None]
) -> None:
    inputs = [Input(f"x{place}", torch.float32, shape) for place, shape in enumerate(shapes)]
    assert [spec.row_axis for spec in trace(_Sum(), inputs).inputs] == axes


def test_rows_become_what_the_network_takes_and_come_back() -> None:
    states = Input("states", torch.float32, (2, B, 3), row_axis=1)
    rows = np.arange(24.0).reshape(4, 2, 3)
    taken = states.of_rows(rows)
    assert (taken.shape, taken.dtype, taken.is_contiguous()) == ((2, 4, 3), torch.float32, True)
    assert taken[1, 3].tolist() == [21, 22, 23]
    assert np.array_equal(states.as_rows(taken, 4), rows)
    rate = Input("rate", torch.int64, (), row_axis=None)
    assert rate.of_rows(np.array([8, 8])).item() == 8
    assert rate.as_rows(torch.tensor(8), 3).tolist() == [8, 8, 8]


def test_rows_and_batches_are_counted_where_they_are() -> None:
    states_first = trace(_Sum(), [Input("s", torch.float32, (2, B, 6)), Input("x", torch.float32, (B, 3))])
    inputs = states_first.examples(5)
    assert [tuple(each.shape) for each in inputs] == [(2, 5, 6), (5, 3)]
    assert (states_first.rows_in(inputs), states_first.batch_in(inputs)) == (5, 5)
    time_first = recurrent_network("gru", batch_first=False)
    inputs = time_first.examples(5)
    assert (time_first.rows_in(inputs), time_first.batch_in(inputs)) == (len(inputs[0]), 5)


def test_what_follows_from_the_graph_is_computed_once_for_its_copies() -> None:
    batch = Dimension("b")
    network = trace(nn.Linear(3, 2), [Input("x", torch.float32, (batch, 3))])
    compute = Mock(return_value="found")
    for each in (network, network.copy(), network.copy()):
        assert each.computed("name", compute) == "found"
    compute.assert_called_once()


def test_copies_of_other_shapes_or_nodes_compute_anew() -> None:
    network = trace(nn.Linear(3, 2), [Input("x", torch.float32, (Dimension("b"), 3))])
    wider, longer = network.copy(), network.copy()
    surgery.store(wider.module, "weight", torch.zeros(4, 3))
    [linear] = call_nodes(longer.module)
    with longer.module.graph.inserting_after(linear):
        longer.module.graph.call_function(torch.ops.aten.relu.default, (linear,))
    names = ("original", "wider", "longer")
    found = [
        each.computed("x", name.upper) for each, name in zip((network, wider, longer), names, strict=True)
    ]
    assert found == ["ORIGINAL", "WIDER", "LONGER"]


class _Choice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(x.sum() > 0, self.yes, self.no, (x,))
        return chosen


def test_a_choice_of_fixed_length_narrows_none_that_is_traced_later() -> None:
    torch.compiler.reset()
    torch.export.export(_Choice().eval(), (torch.ones(3, 3),))
    variable = Input("x", torch.float32, (Dimension("batch", example=2), 3))
    network = trace(_Choice().eval(), [variable])
    torch.export.export(_Choice().eval(), (torch.ones(3, 3),))
    called = replace(network, signature=Signature(("x",), ((Place(0), 1.0),), {}))
    for again in (network, called):
        [lengths] = export_as_called(again).range_constraints.values()
        assert lengths.upper > 3
