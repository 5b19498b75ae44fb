"""CP against the slices of a dense HOSVD, which bound its error, and on tensors that have no best fit."""

from math import prod
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks, moment
from workers.engine.decomposition.cp import as_convolutions, cp, cp_errors, full_rank, slice_errors
from workers.engine.decomposition.tucker import Roots
from workers.engine.decomposition.whitening import root, whitened_modes

_RIDGE = 1e-3


def _rebuild(factors: tuple[Tensor, ...]) -> Tensor:
    letters = "abcdef"[: len(factors)]
    return torch.einsum(",".join(letter + "z" for letter in letters) + f"->{letters}", *factors)


def _slices_oracle(T: Tensor) -> Tensor:
    """Squared singular values of all slices along the two largest modes, the others in HOSVD coordinates."""
    T = T.permute(sorted(range(T.ndim), key=lambda mode: -T.shape[mode]))
    for mode in range(2, T.ndim):
        U = torch.linalg.svd(T.movedim(mode, 0).flatten(1))[0]
        T = torch.tensordot(T, U, dims=([mode], [0])).movedim(-1, mode)
    values = torch.linalg.svdvals(T.reshape(*T.shape[:2], -1).permute(2, 0, 1))
    energies: Tensor = values.square().flatten().sort(descending=True).values
    return energies


def _kernel(seed: int = 0, scale: float = 1.0) -> Tensor:
    """A kernel of the size of a small layer's, its energy spread unevenly like a trained one's."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(12, 10, 9, generator=generator, dtype=torch.float64)
    decay = [torch.logspace(0, -1.5, size, dtype=torch.float64) for size in W.shape]
    return scale * torch.einsum("oik,o,i,k->oik", W, *decay)


class TestCp(DecompositionConformance):
    monotonic = False  # no such theorem; the slices bound it

    def roots(self, shape: tuple[int, ...]) -> Roots:
        """Of the leading modes' second moments."""
        return ()

    def shape(self, draw: Any) -> tuple[int, ...]:
        shapes = st.sampled_from(
            [(4, 3, 9), (2, 5, 3), (5, 5, 1), (1, 4, 9), (4, 5, 6), (3, 2, 3, 2), (4, 3)]
        )
        shape: tuple[int, ...] = draw(shapes)
        return shape

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return (full_rank(shape),)

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        return cp(W, ranks[0], roots=self.roots(tuple(W.shape)), sweeps=15).factors

    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        return _rebuild(factors)

    def error(self, W: Tensor, ranks: Ranks) -> float:
        difference = W - self.rebuild(self.factors(W, ranks))
        return float(whitened_modes(difference, self.roots(tuple(W.shape))).square().sum())

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        energies = _slices_oracle(whitened_modes(W, self.roots(tuple(W.shape))))
        return float(energies[ranks[0] :].sum() + _RIDGE * energies[: ranks[0]].sum())


class TestWeightedCp(TestCp):
    def roots(self, shape: tuple[int, ...]) -> Roots:
        return root(moment(shape[0], samples=30)), root(moment(shape[1], samples=30, seed=1))


class TestWeightedCpOfFewSamples(TestCp):
    def roots(self, shape: tuple[int, ...]) -> Roots:
        return None, root(moment(shape[1], samples=2))


@pytest.mark.parametrize("rank", [3, 20, 60])
def test_the_result_says_what_its_factors_are(rank: int) -> None:
    W = _kernel(scale=1e-4)
    fit = cp(W, rank)
    assert float((_rebuild(fit.factors) - W).square().sum() / W.square().sum()) == pytest.approx(fit.error)
    norms = torch.stack([factor.norm(dim=0) for factor in fit.factors])
    assert float(norms.prod(0).square().sum() / W.square().sum()) == pytest.approx(fit.degeneracy)
    torch.testing.assert_close(norms, norms[:1].expand(3, -1))


def test_the_same_seed_gives_the_same_factors() -> None:
    first = cp(_kernel(), 15, starts=3, seed=5)
    torch.rand(1)
    again = cp(_kernel(), 15, starts=3, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.factors, again.factors, strict=True))


def test_a_sum_of_outer_products_is_found_again() -> None:
    generator = torch.Generator().manual_seed(8)
    W = _rebuild(tuple(torch.randn(size, 5, generator=generator).double() for size in (12, 10, 9)))
    assert cp(W, 5, ridge=1e-9).error < 1e-9
    assert cp(W, 5).error < 1e-4


def test_sweeps_and_starts_lower_the_error() -> None:
    W = _kernel()
    few, many = cp(W, 20, sweeps=3, starts=1), cp(W, 20, sweeps=100)
    assert many.error < 0.9 * few.error
    assert few.error < float(slice_errors(W)[20])


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_a_tensor_whose_best_fit_does_not_exist_gets_a_sound_one(ridge: float) -> None:
    a, b, c = torch.eye(3).double()
    limit = [(a, b, b), (b, a, b), (b, b, a), (a, a, c), (a, c, a), (c, a, a)]  # of rank 5, border rank 3
    W = sum((torch.einsum("a,b,c->abc", *terms) for terms in limit), torch.zeros(3, 3, 3).double())
    fit = cp(W, 3, ridge=ridge, sweeps=300)
    assert fit.degeneracy <= 100
    assert fit.error < 0.02
    if ridge == 0.0:
        assert fit.ridge > 1e-12, "without a ridge this tensor's components grow without limit"


def test_the_correction_shrinks_the_components_at_the_error_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    W = _kernel()
    corrected = cp(W, 30, ridge=1e-9)
    monkeypatch.setattr("workers.engine.decomposition.cp._CORRECTIONS", 0)
    plain = cp(W, 30, ridge=1e-9)
    assert corrected.degeneracy < 0.95 * plain.degeneracy
    assert corrected.error == pytest.approx(plain.error, rel=1e-9)


def test_the_slices_are_exact_bounds_for_every_rank() -> None:
    W = _kernel()
    energies = _slices_oracle(W)
    bounds = slice_errors(W)
    expected = torch.stack(
        [energies[rank:].sum() / energies.sum() for rank in range(full_rank(tuple(W.shape)) + 1)]
    )
    torch.testing.assert_close(bounds, expected, rtol=1e-9, atol=1e-12)


def test_fits_at_a_list_of_ranks_lie_between_the_slices_and_a_whole_fit() -> None:
    W, ranks = _kernel(), [5, 20, 40]
    roots = root(moment(12, samples=40)), root(moment(10, samples=40, seed=1))
    bounds = slice_errors(W, roots=roots)
    for rank, error in zip(ranks, cp_errors(W, ranks, roots=roots), strict=True):
        assert cp(W, rank, roots=roots).error - 1e-6 <= error <= float(bounds[rank]) + _RIDGE
    with pytest.raises(ValueError, match="outside"):
        cp_errors(W, [5, 91])


def test_three_convolutions_do_what_the_tensor_does() -> None:
    generator = torch.Generator().manual_seed(9)
    W = torch.randn(4, 3, 3, 2, generator=generator).double()
    x = torch.randn(2, 3, 8, 7, generator=generator).double()
    rank = full_rank((4, 3, 6))
    first, middle, last = as_convolutions(cp(W.flatten(2), rank).factors, W.shape[2:])
    inner = conv2d(conv2d(x, first), middle, None, (2, 1), (1, 2), (2, 1), groups=rank)
    torch.testing.assert_close(conv2d(inner, last), conv2d(x, W, None, (2, 1), (1, 2), (2, 1)))
    assert first.numel() + middle.numel() + last.numel() == rank * (4 + 3 + 6)


def test_more_components_than_any_mode_has_are_fine() -> None:
    W = _kernel()
    rank = max(W.shape) + 8
    fit = cp(W, rank)
    assert [tuple(factor.shape) for factor in fit.factors] == [(size, rank) for size in W.shape]
    assert fit.error < float(slice_errors(W)[rank])
    assert rank < full_rank(tuple(W.shape)) == prod(W.shape) // 12
