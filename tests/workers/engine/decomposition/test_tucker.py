"""Tucker, plain and data-aware, against the truncated HOSVD of dense SVDs."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks, moment
from workers.engine.decomposition.tucker import Roots, full_tucker, hosvd, tucker2
from workers.engine.decomposition.whitening import root


def _mode_product(W: Tensor, M: Tensor, mode: int) -> Tensor:
    last: Tensor = W.movedim(mode, -1) @ M.T
    return last.movedim(-1, mode)


def _weighted(W: Tensor, roots: Roots) -> Tensor:
    for mode, half in enumerate(roots):
        W = W if half is None else _mode_product(W, half.L.T, mode)
    return W


def _truncated_hosvd(W: Tensor, ranks: Ranks) -> Tensor:
    truncated = W
    for mode, rank in enumerate(ranks):
        U = torch.linalg.svd(W.movedim(mode, 0).flatten(1), full_matrices=False)[0][:, :rank]
        truncated = _mode_product(truncated, U @ U.T, mode)
    return truncated


def _multiply(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    for mode, factor in enumerate(factors):
        core = _mode_product(core, factor, mode)
    return core


class TestTucker2(DecompositionConformance):
    monotonic = False  # HOOI finds a local minimum; the bound below is what theory gives

    def roots(self, shape: tuple[int, ...]) -> Roots:
        """Of the output and the input channels' second moments."""
        return None, None

    def shape(self, draw: Any) -> tuple[int, ...]:
        kernel = draw(st.sampled_from([(3, 3), (5, 5), (3,), (3, 3, 3), (1, 7)]))
        return draw(st.integers(1, 8)), draw(st.integers(1, 8)), *kernel

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return shape[:2]

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        left, right = self.roots(tuple(W.shape))
        return tucker2(W, (ranks[0], ranks[1]), right=right, left=left)

    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        return _multiply(factors[0], factors[1:])

    def error(self, W: Tensor, ranks: Ranks) -> float:
        difference = W - self.rebuild(self.factors(W, ranks))
        return float(_weighted(difference, self.roots(tuple(W.shape))).square().sum())

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        weighted = _weighted(W, self.roots(tuple(W.shape)))
        return float((weighted - _truncated_hosvd(weighted, ranks)).square().sum())


class TestWeightedTucker2(TestTucker2):
    def roots(self, shape: tuple[int, ...]) -> Roots:
        return root(moment(shape[0], samples=30)), root(moment(shape[1], samples=30, seed=1))


class TestWeightedTucker2OfFewSamples(TestTucker2):
    def roots(self, shape: tuple[int, ...]) -> Roots:
        return None, root(moment(shape[1], samples=3))


class TestFullTucker(TestTucker2):
    def shape(self, draw: Any) -> tuple[int, ...]:
        gates = st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 8), st.integers(1, 8))
        kernels = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3))
        shape: tuple[int, ...] = draw(st.one_of(gates, kernels))
        return shape

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return shape

    def roots(self, shape: tuple[int, ...]) -> Roots:
        return (None,) * len(shape)

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        return full_tucker(W, ranks, roots=self.roots(tuple(W.shape)))


class TestWeightedFullTucker(TestFullTucker):
    def roots(self, shape: tuple[int, ...]) -> Roots:
        weighted = root(moment(shape[1], samples=30)), root(moment(shape[2], samples=30, seed=1))
        return None, *weighted, *(None,) * (len(shape) - 3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("modes", [2, 4])
def test_the_error_table_is_exact_for_every_choice_of_ranks(weighted: bool, modes: int) -> None:
    W = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(modes)).double()
    sizes = tuple(W.shape[:modes])
    roots = [root(moment(size, samples=20)) if weighted else None for size in sizes]
    table = hosvd(W, roots).relative_errors()
    assert table.shape == sizes
    target = _weighted(W, roots)
    for ranks in itertools.product(*(range(1, size + 1) for size in sizes)):
        exact = (target - _truncated_hosvd(target, ranks)).square().sum() / target.square().sum()
        torch.testing.assert_close(table[tuple(rank - 1 for rank in ranks)], exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_inputs_that_favour_some_channels_are_worth_knowing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(12, 10, 3, 3, generator=generator).double()
    roots = (None, root(moment(10, samples=40, seed=seed)))

    def error(factors: tuple[Tensor, ...]) -> Tensor:
        return _weighted(W - _multiply(factors[0], factors[1:]), roots).square().sum()

    assert error(tucker2(W, (6, 4), right=roots[1])) < 0.7 * error(tucker2(W, (6, 4)))


def test_the_factors_have_orthonormal_columns() -> None:
    W = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    _, factor_out, factor_in = tucker2(
        W, (5, 4), right=root(moment(6, samples=20)), left=root(moment(8, samples=20))
    )
    for factor in (factor_out, factor_in):
        torch.testing.assert_close(factor.T @ factor, torch.eye(factor.shape[1]).double())
