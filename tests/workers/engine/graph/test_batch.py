"""Where the batch is: told by what recurrent calls and loops run over, also after these were rewritten."""

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.layers.cells import half, rewritten
from tests.workers.engine.networks import BATCH, LENGTH, recurrent_network
from workers.engine.graph.network import Dimension, Input, Network, trace


class Behind(nn.Module):
    """Time first inside only: the batch comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        sequence: Tensor = self.rnn(x.transpose(0, 1))[0]
        return sequence.transpose(0, 1)


def gru(*lengths: int | Dimension) -> Network:
    return trace(nn.GRU(5, 7).eval(), [Input("x", torch.float32, (*lengths, 5))])


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_time_before_the_batch_is_told_from_time_behind_it(given: bool, batch_first: bool) -> None:
    network = recurrent_network("lstm", batch_first=batch_first, given=given)
    assert network.batch_axis == (not batch_first)
    assert network.batch_symbol == BATCH.symbol
    assert network.sizes(3)[0] == ((3, 6, 5) if batch_first else (6, 3, 5))
    assert network.copy().batch_axis == network.batch_axis


@pytest.mark.parametrize("method", ["svd", "tucker"])
def test_a_loop_runs_over_time_like_the_call_in_its_place(method: str) -> None:
    changed, changes = rewritten(recurrent_network("lstm", batch_first=False), method, half)
    assert changes
    assert (changed.batch_axis, changed.batch_symbol) == (1, BATCH.symbol)


def test_lengths_that_are_fixed_leave_the_other_to_tell() -> None:
    assert gru(9, BATCH).sizes(2) == ((9, 2, 5),)
    assert gru(LENGTH, 4).sizes(2) == ((6, 4, 5),)
    assert gru(LENGTH).sizes(2) == ((6, 5),)  # one sequence without a batch
    assert gru(BATCH, 9).batch_axis == 1  # whatever its name is, it is run over


def test_what_is_turned_inside_has_its_batch_first() -> None:
    network = trace(Behind().eval(), [Input("x", torch.float32, (BATCH, LENGTH, 5))])
    assert network.sizes(3) == ((3, 6, 5),)
