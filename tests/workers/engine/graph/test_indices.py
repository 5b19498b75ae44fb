"""Which inputs are indices, and into how long a table."""

import torch
from torch import Tensor, nn

from tests.workers.engine.networks import BATCH
from workers.engine.graph.indices import table_lengths
from workers.engine.graph.network import Input, trace


class Lookups(nn.Module):
    """Two tables for `ids`, one each for the columns of `pairs`, none for `x`."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.short = nn.Embedding(30, 4), nn.Embedding(20, 4)
        self.left, self.right = nn.Embedding(3, 4), nn.Embedding(500, 4)

    def forward(self, ids: Tensor, pairs: Tensor, x: Tensor) -> Tensor:
        tokens = self.long(ids).mean(1) + self.short(ids.reshape(-1, 2).long()).mean(1)
        out: Tensor = tokens + self.left(pairs[:, 0]) + self.right(pairs[:, 1]) + x
        return out


def test_an_input_is_bound_by_the_shortest_table_that_all_of_it_is_looked_up_in() -> None:
    inputs = [
        Input("ids", torch.int32, (BATCH, 2)),
        Input("pairs", torch.int64, (BATCH, 2)),
        Input("x", torch.float32, (BATCH, 4)),
    ]
    assert table_lengths(trace(Lookups().eval(), inputs)) == {"ids": 20}
