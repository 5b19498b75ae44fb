"""The shapes that a network is measured at."""

import torch
from torch import nn

from workers.engine.graph.network import Dimension, Input, Network


def network_of(*shapes: tuple[int | Dimension, ...]) -> Network:
    inputs = tuple(Input(f"x{i}", torch.float32, shape) for i, shape in enumerate(shapes))
    return Network(torch.fx.symbolic_trace(nn.Identity()), inputs)


def test_the_batch_is_the_first_first_axis_that_varies() -> None:
    batch, length = Dimension("b"), Dimension("t", example=7)
    assert network_of((4, length), (batch, length)).batch_symbol == "b"
    assert network_of((), (4, length)).batch_symbol is None


def test_sizes_put_the_batch_as_asked_and_other_axes_at_their_example() -> None:
    batch, length = Dimension("b", minimum=2, example=9), Dimension("t", example=7)
    network = network_of((batch, length, 3), (length, batch), (5,))
    assert network.sizes() == ((1, 7, 3), (7, 1), (5,))
    assert network.sizes(16) == ((16, 7, 3), (7, 16), (5,))
