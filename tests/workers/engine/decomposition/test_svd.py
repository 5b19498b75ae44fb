"""Truncated SVD against numpy's."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks
from workers.engine.decomposition.spectrum import relative_tails, singular_energies
from workers.engine.decomposition.svd import truncated_svd


class TestTruncatedSvd(DecompositionConformance):
    def shape(self, draw: Any) -> tuple[int, ...]:
        return draw(st.integers(1, 12)), draw(st.integers(1, 12))

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return (min(shape),)

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        return truncated_svd(W, ranks[0])

    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        return factors[0] @ factors[1]

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        return float(torch.linalg.svdvals(W)[ranks[0] :].square().sum())


def test_the_factors_are_balanced() -> None:
    A, B = truncated_svd(torch.randn(30, 20, generator=torch.Generator().manual_seed(1)), 7)
    torch.testing.assert_close(A.norm(dim=0), B.norm(dim=1), rtol=1e-5, atol=1e-6)


def test_a_thousand_square_at_rank_one_hundred_has_two_hundred_thousand_parameters() -> None:
    A, B = truncated_svd(torch.eye(1000), 100)
    assert A.numel() + B.numel() == 200_000


def test_tails_are_the_discarded_energy() -> None:
    W = torch.randn(9, 14, generator=torch.Generator().manual_seed(2)).double()
    tails = relative_tails(singular_energies(W))
    values = torch.linalg.svdvals(W).square()
    expected = torch.stack([values[r:].sum() / values.sum() for r in range(10)])
    torch.testing.assert_close(tails, expected, rtol=1e-9, atol=1e-12)


def test_the_tails_of_a_zero_matrix_are_zero() -> None:
    assert relative_tails(singular_energies(torch.zeros(3, 4))).tolist() == [0.0] * 4
