"""EVBMF on matrices whose rank is known because it was planted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.engine.decomposition.spectrum import singular_energies
from workers.engine.decomposition.vbmf import evbmf_rank

SHAPES = [(40, 60), (60, 40), (80, 80), (30, 200), (64, 1152)]


def _rank(W: Tensor) -> int:
    return evbmf_rank(singular_energies(W), (W.shape[0], W.shape[1]))


def _planted(shape: tuple[int, int], rank: int, noise: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(shape[0], rank, generator=generator, dtype=torch.float64)
    B = torch.randn(rank, shape[1], generator=generator, dtype=torch.float64)
    return A @ B + noise * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 4, 10])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.3, 1.0])
def test_a_planted_rank_is_found(shape: tuple[int, int], rank: int, noise: float) -> None:
    assert [_rank(_planted(shape, rank, noise, seed)) for seed in range(3)] == [rank] * 3


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_alone_has_no_rank(shape: tuple[int, int]) -> None:
    assert [_rank(_planted(shape, 0, 1.0, seed)) for seed in range(5)] == [0] * 5


def test_a_signal_below_the_noise_is_not_found_and_a_louder_one_is() -> None:
    """In 100 × 100 the threshold, 4.91 × 100 of the squared value, is reached by a signal of strength 16."""
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(100, generator=generator), torch.randn(100, generator=generator)
    noise, signal = torch.randn(100, 100, generator=generator), torch.outer(u / u.norm(), v / v.norm())
    found = [_rank(noise + strength * signal) for strength in (5.0, 10.0, 25.0, 60.0)]
    assert found == [0, 0, 1, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5), st.integers(0, 999))
def test_neither_scale_nor_orientation_matters(m: int, n: int, rank: int, seed: int) -> None:
    W = _planted((m, n), rank, 0.3, seed)
    found = _rank(W)
    assert 0 <= found <= min(m, n)
    assert [_rank(1e-6 * W), _rank(1e6 * W), _rank(W.T)] == [found] * 3


def test_a_zero_matrix_has_none() -> None:
    assert _rank(torch.zeros(5, 7)) == 0
