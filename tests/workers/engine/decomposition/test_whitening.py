"""Square roots of second moments, regular and singular."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.engine.decomposition.conformance import moment
from workers.engine.decomposition.whitening import root, shrink, whitened


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 99), st.sampled_from([1e-8, 1.0, 1e12]))
def test_the_root_squares_to_the_moment_and_inverts_on_its_support(
    n: int, samples: int, seed: int, scale: float
) -> None:
    C = moment(n, samples, seed) * scale
    half = root(C)
    torch.testing.assert_close(half.L @ half.L.T, C, rtol=1e-9, atol=1e-11 * scale)
    support = half.L @ half.inverse
    torch.testing.assert_close(support @ C, C, rtol=1e-6, atol=1e-8 * scale)
    torch.testing.assert_close(support @ support, support, rtol=1e-6, atol=1e-8)


def test_only_a_singular_moment_is_floored() -> None:
    assert not root(moment(6, 40)).floored
    assert root(moment(6, 3)).floored
    assert int(torch.linalg.matrix_rank(root(moment(6, 3)).inverse)) == 3


def test_a_moment_that_cholesky_takes_but_cannot_invert_is_floored() -> None:
    nearly = torch.diag(torch.tensor([1.0, 1e-15], dtype=torch.float64))
    assert not torch.linalg.cholesky_ex(nearly)[1]
    half = root(nearly)
    assert half.floored
    assert float(half.inverse.abs().max()) == pytest.approx(1.0)


def test_a_zero_moment_gives_zeros() -> None:
    half = root(torch.zeros(4, 4))
    assert half.floored
    assert not half.L.any()
    assert not half.inverse.any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_moment_that_is_not_finite_is_refused(poison: float) -> None:
    C = torch.eye(3)
    C[1, 2] = poison
    for refuse in (root, lambda singular: shrink(singular, 0.1)):
        with pytest.raises(ValueError, match="NaN"):
            refuse(C)


def test_shrinking_keeps_the_trace_and_makes_a_singular_moment_regular() -> None:
    C = moment(6, 2)
    shrunk = shrink(C, 0.1)
    assert float(shrunk.trace()) == pytest.approx(float(C.trace()))
    assert not root(shrunk).floored
    torch.testing.assert_close(shrink(C, 0.0), C)
    torch.testing.assert_close(shrink(C, 1.0), torch.eye(6).double() * C.trace() / 6)


def test_a_shrinkage_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        shrink(torch.eye(2), 1.5)


def test_the_whitened_norm_is_the_data_aware_one() -> None:
    C, G = moment(5, 20), moment(4, 20, seed=1)
    W = torch.randn(4, 5, generator=torch.Generator().manual_seed(2)).double()
    energy = whitened(W, root(C), root(G)).square().sum()
    torch.testing.assert_close(energy, (G @ W @ C @ W.T).trace())


def test_a_diagonal_moment_is_never_made_square() -> None:
    frequencies = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    W = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double()
    half, square = root(frequencies), root(torch.diag(frequencies))
    assert half.L.shape == half.inverse.shape == (4,)
    assert half.floored
    torch.testing.assert_close(half.L @ half.L, frequencies.sum())
    torch.testing.assert_close(
        whitened(W, half, None).square().sum(), whitened(W, square, None).square().sum()
    )
    torch.testing.assert_close(shrink(frequencies, 0.1).diag(), shrink(frequencies.diag(), 0.1))
