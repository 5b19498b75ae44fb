"""Tucker-2 against the truncated HOSVD of a dense SVD."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks
from workers.engine.decomposition.tucker import hosvd, tucker2


def _hosvd_oracle(W: Tensor, ranks: Ranks) -> Tensor:
    U = torch.linalg.svd(W.flatten(1), full_matrices=False)[0][:, : ranks[0]]
    V = torch.linalg.svd(W.transpose(0, 1).flatten(1), full_matrices=False)[0][:, : ranks[1]]
    return torch.einsum("oi...,oa,pa,ib,jb->pj...", W, U, U, V, V)


class TestTucker2(DecompositionConformance):
    monotonic = False  # HOOI finds a local minimum; the bound below is what theory gives

    def shape(self, draw: Any) -> tuple[int, ...]:
        kernel = draw(st.sampled_from([(3, 3), (5, 5), (3,), (3, 3, 3), (1, 7)]))
        return draw(st.integers(1, 8)), draw(st.integers(1, 8)), *kernel

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return shape[:2]

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        return tucker2(W, (ranks[0], ranks[1]))

    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        return torch.einsum("ab...,oa,ib->oi...", *factors)

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        return float((W - _hosvd_oracle(W, ranks)).square().sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))
def test_the_error_table_is_exact_for_every_pair_of_ranks(out: int, channels: int, seed: int) -> None:
    W = torch.randn(out, channels, 3, 3, generator=torch.Generator().manual_seed(seed)).double()
    table = hosvd(W).relative_errors()
    for a in range(out):
        for b in range(channels):
            exact = (W - _hosvd_oracle(W, (a + 1, b + 1))).square().sum() / W.square().sum()
            torch.testing.assert_close(table[a, b], exact, rtol=1e-6, atol=1e-9)
