"""Truncated SVD, plain and data-aware, against dense oracles."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks, moment
from workers.engine.decomposition.spectrum import relative_tails, singular_energies
from workers.engine.decomposition.svd import corrected_bias, truncated_svd
from workers.engine.decomposition.whitening import Root, root, whitened


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


class TestWhitenedSvd(TestTruncatedSvd):
    """The same promises in the data-aware norm."""

    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        """Of the inputs' and of the gradients' second moments."""
        return root(moment(shape[1], samples=30)), None

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        right, left = self.roots(tuple(W.shape))
        return truncated_svd(W, ranks[0], right=right, left=left)

    def error(self, W: Tensor, ranks: Ranks) -> float:
        difference = self.rebuild(self.factors(W, ranks)) - W
        return float(whitened(difference, *self.roots(tuple(W.shape))).square().sum())

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        return float(
            torch.linalg.svdvals(whitened(W, *self.roots(tuple(W.shape))))[ranks[0] :].square().sum()
        )


class TestGradientWeightedSvd(TestWhitenedSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return None, root(moment(shape[0], samples=30))


class TestTwoSidedSvd(TestWhitenedSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return root(moment(shape[1], samples=30)), root(moment(shape[0], samples=30, seed=1))


class TestTwoSidedSvdOfFewInputs(TestWhitenedSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return root(moment(shape[1], samples=3)), root(moment(shape[0], samples=30, seed=1))


class TestTwoSidedSvdOfFewGradients(TestWhitenedSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return root(moment(shape[1], samples=30)), root(moment(shape[0], samples=3, seed=1))


class TestTwoSidedSvdOfFewSamples(TestWhitenedSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return root(moment(shape[1], samples=3)), root(moment(shape[0], samples=4, seed=1))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 15), st.integers(0, 99), st.data())
def test_the_whitened_error_is_the_discarded_tail_and_never_above_plain_svds(
    m: int, n: int, samples: int, seed: int, data: st.DataObject
) -> None:
    W = torch.randn(m, n, generator=torch.Generator().manual_seed(seed)).double()
    C, rank = moment(n, samples, seed + 1), data.draw(st.integers(1, min(m, n)))
    A, B = truncated_svd(W, rank, right=root(C))
    energies = singular_energies(W, right=root(C))

    def objective(difference: Tensor) -> float:
        return float((difference @ C @ difference.T).trace())

    total = objective(W)
    closed_form = float(energies[rank:].sum())
    assert objective(W - A @ B) == pytest.approx(closed_form, rel=1e-6, abs=1e-12 * total)
    plain_A, plain_B = truncated_svd(W, rank)
    assert objective(W - A @ B) <= objective(W - plain_A @ plain_B) + 1e-12 * total


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_the_factors_are_balanced(shape: tuple[int, int]) -> None:
    W = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    right, left = root(moment(shape[1], samples=40)), root(moment(shape[0], samples=40))
    for roots in ((None, None), (right, None), (None, left), (right, left)):
        A, B = truncated_svd(W, 7, right=roots[0], left=roots[1])
        torch.testing.assert_close(A.norm(dim=0), B.norm(dim=1), rtol=1e-5, atol=1e-6)


def test_the_corrected_bias_reproduces_the_mean_output_and_none_is_better() -> None:
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(200, 6, generator=generator, dtype=torch.float64) * 2 + 3
    W, bias = torch.randn(5, 6, generator=generator).double(), torch.randn(5, generator=generator).double()
    mean, wanted = X.mean(0), X @ W.T + bias

    def error(A: Tensor, B: Tensor, candidate: Tensor) -> Tensor:
        return (wanted - X @ (A @ B).T - candidate).square().sum(1).mean()

    A, B = truncated_svd(W, 2, right=root((X - mean).T @ (X - mean) / len(X)))
    corrected = corrected_bias(bias, W, A, B, mean).requires_grad_()
    torch.testing.assert_close((X @ (A @ B).T + corrected).mean(0), wanted.mean(0))
    (slope,) = torch.autograd.grad(error(A, B, corrected), corrected)
    torch.testing.assert_close(slope, torch.zeros(5).double(), rtol=0, atol=1e-10)
    uncentred = truncated_svd(W, 2, right=root(X.T @ X / len(X)))
    assert error(A, B, corrected) < error(*uncentred, corrected_bias(bias, W, *uncentred, mean))


def test_a_layer_without_a_bias_gets_the_correction_alone() -> None:
    W, mean = torch.eye(3), torch.tensor([1.0, 2.0, 3.0])
    A, B = truncated_svd(W, 3)
    torch.testing.assert_close(corrected_bias(None, 2 * W, A, B, mean), mean)


def test_tails_are_the_discarded_energy() -> None:
    W = torch.randn(9, 14, generator=torch.Generator().manual_seed(2)).double()
    tails = relative_tails(singular_energies(W))
    values = torch.linalg.svdvals(W).square()
    expected = torch.stack([values[r:].sum() / values.sum() for r in range(10)])
    torch.testing.assert_close(tails, expected, rtol=1e-9, atol=1e-12)


def test_the_tails_of_a_zero_matrix_are_zero() -> None:
    assert relative_tails(singular_energies(torch.zeros(3, 4))).tolist() == [0.0] * 4
