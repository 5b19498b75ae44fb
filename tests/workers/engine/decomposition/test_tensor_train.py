"""Tensor trains against the unfoldings' dense SVDs, and their products against the matrix they stand for."""

from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks
from workers.engine.decomposition import tensor_train as tt

_SHAPES = [((2, 3), (3, 2)), ((2, 2, 3), (2, 3, 2)), ((4, 1, 2), (1, 3, 2)), ((2, 2, 2, 2), (2, 1, 2, 3))]
_BY_SIZE = {(prod(rows), prod(columns)): (rows, columns) for rows, columns in _SHAPES}


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)).double()


def _unfoldings(W: Tensor, rows: Ranks, columns: Ranks) -> list[Tensor]:
    d = len(rows)
    T = W.reshape(*rows, *columns)
    return [
        T.movedim([*range(k), *range(d, d + k)], list(range(2 * k))).flatten(0, 2 * k - 1).flatten(1)
        for k in range(1, d)
    ]


class TestTensorTrain(DecompositionConformance):
    monotonic = False  # quasi-optimal: the bound below is what theory gives

    def shape(self, draw: Any) -> tuple[int, ...]:
        m, n = draw(st.sampled_from(list(_BY_SIZE)))
        return m, n

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return tt.max_ranks(*_BY_SIZE[shape[0], shape[1]])

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        return tt.tensor_train(W, *_BY_SIZE[W.shape[0], W.shape[1]], ranks)

    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        return tt.rebuild(factors)

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        unfoldings = _unfoldings(W, *_BY_SIZE[W.shape[0], W.shape[1]])
        return sum(
            float(torch.linalg.svdvals(unfolding)[rank:].square().sum())
            for unfolding, rank in zip(unfoldings, ranks, strict=True)
        )


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("rows", "columns"), _SHAPES)
def test_the_error_stays_within_epsilon(rows: Ranks, columns: Ranks, epsilon: float) -> None:
    W = _random(prod(rows), prod(columns))
    cores = tt.tensor_train_within(W, rows, columns, epsilon)
    assert float((tt.rebuild(cores) - W).norm() / W.norm()) <= epsilon + 1e-9
    if epsilon >= 0.7:
        assert sum(core.numel() for core in cores) < tt.parameters(rows, columns, tt.max_ranks(rows, columns))


def test_a_matrix_that_is_a_train_is_found_at_its_own_ranks() -> None:
    rows, columns = (4, 3, 5), (3, 4, 2)
    cores = [_random(1, 4, 3, 2), _random(2, 3, 4, 3), _random(3, 5, 2, 1)]
    W = tt.rebuild(cores)
    found = tt.tensor_train_within(W, rows, columns, 1e-6)
    assert [tuple(core.shape) for core in found] == [tuple(core.shape) for core in cores]
    torch.testing.assert_close(tt.rebuild(found), W)


def test_every_element_is_a_product_of_the_cores_slices() -> None:
    cores = [_random(1, 2, 3, 2), _random(2, 3, 2, 4), _random(4, 2, 2, 1)]
    W = tt.rebuild(cores)
    for i, digits in enumerate(torch.cartesian_prod(*(torch.arange(m) for m in (2, 3, 2))).tolist()):
        for j, places in enumerate(torch.cartesian_prod(*(torch.arange(n) for n in (3, 2, 2))).tolist()):
            slices = [core[:, a, b] for core, a, b in zip(cores, digits, places, strict=True)]
            assert float(torch.linalg.multi_dot(slices)) == pytest.approx(float(W[i, j]))


@pytest.mark.parametrize(("rows", "columns"), [*_SHAPES, ((6,), (4,))])
def test_the_product_is_the_matrixs_and_costs_what_is_said(rows: Ranks, columns: Ranks) -> None:
    ranks = tuple(max(1, rank // 2) for rank in tt.max_ranks(rows, columns))
    cores = tt.tensor_train(_random(prod(rows), prod(columns)), rows, columns, ranks)
    x = _random(5, 2, prod(columns))
    with FlopCounterMode(display=False) as counter:
        y = tt.apply(cores, x)
    torch.testing.assert_close(y, x @ tt.rebuild(cores).T)
    assert counter.get_total_flops() == 2 * 10 * tt.macs(rows, columns, ranks)
    assert sum(core.numel() for core in cores) == tt.parameters(rows, columns, ranks)


@pytest.mark.parametrize(("rows", "columns"), [*_SHAPES, ((6,), (4,))])
def test_a_lookup_gives_the_matrixs_rows_and_costs_what_is_said(rows: Ranks, columns: Ranks) -> None:
    ranks = tuple(max(1, rank // 2) for rank in tt.max_ranks(rows, columns))
    vocabulary = prod(rows) - 1
    W = _random(vocabulary, prod(columns))
    indices = torch.arange(2 * vocabulary).reshape(2, vocabulary) % vocabulary
    cores = tt.tensor_train(W, rows, columns, ranks)
    with FlopCounterMode(display=False) as counter:
        found = tt.rows_of(cores, indices)
    torch.testing.assert_close(found, tt.rebuild(cores)[indices])
    assert counter.get_total_flops() == 2 * indices.numel() * tt.lookup_macs(
        columns=columns, rows=rows, ranks=ranks
    )
    exact = tt.tensor_train(W, rows, columns, tt.max_ranks(rows, columns))
    torch.testing.assert_close(tt.rows_of(exact, indices), W[indices])


@pytest.mark.parametrize(("rows", "columns"), _SHAPES)
def test_the_unfoldings_bound_the_error_from_both_sides(rows: Ranks, columns: Ranks) -> None:
    W = _random(prod(rows), prod(columns))
    tails = tt.unfolding_tails(W, rows, columns)
    for rank in range(1, 5):
        ranks = tuple(min(rank, most) for most in tt.max_ranks(rows, columns))
        error = float(
            (tt.rebuild(tt.tensor_train(W, rows, columns, ranks)) - W).square().sum() / W.square().sum()
        )
        lost = [float(tail[r]) for tail, r in zip(tails, ranks, strict=True)]
        assert max(lost) - 1e-9 <= error <= sum(lost) + 1e-9


def test_the_cores_have_equal_norms() -> None:
    cores = tt.tensor_train(_random(12, 12), (3, 2, 2), (2, 3, 2), (4, 3))
    norms = torch.stack([core.norm() for core in cores])
    torch.testing.assert_close(norms, norms.mean().expand(3))


def test_a_rank_that_its_left_cannot_feed_is_lowered() -> None:
    assert tt.max_ranks((2, 2, 2, 2), (2, 2, 2, 2)) == (4, 16, 4)
    assert tt.feasible_ranks((2, 2, 2, 2), (2, 2, 2, 2), (1, 16, 4)) == (1, 4, 4)


@pytest.mark.parametrize(
    ("rows", "columns"), [((2, 3), (3, 3)), ((2, 2), (3, 2)), ((2, 3), (6,)), ((2, 3, 1), (3, 2))]
)
def test_sizes_that_do_not_fit_are_refused(rows: Ranks, columns: Ranks) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        tt.tensor_train_within(_random(6, 6), rows, columns, 0.1)


def test_factors_are_exact_and_alike() -> None:
    assert tt.factor_shape(4096, 4) == (8, 8, 8, 8)
    assert tt.factor_shape(768, 3) == (8, 8, 12)
    assert tt.factor_shape(13, 2) == (1, 13)
    assert tt.factor_shape(1, 3) == (1, 1, 1)
    assert tt.factor_shape(50257, 3, ceil=True) == (37, 37, 37)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 4))
def test_any_size_has_factors(size: int, parts: int) -> None:
    exact, padded = tt.factor_shape(size, parts), tt.factor_shape(size, parts, ceil=True)
    assert prod(exact) == size
    assert len(exact) == len(padded) == parts
    assert size <= prod(padded)
    assert prod(padded[:-1]) * (padded[-1] - 1) < size
    assert max(padded) <= max(exact)
