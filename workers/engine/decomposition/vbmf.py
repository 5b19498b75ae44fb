"""How many directions of a matrix stand out of noise: empirical variational Bayes, in closed form."""

import math

import torch
from torch import Tensor

_GRID = 64  # noise levels tried at once
_ZOOMS = 4  # each narrows the search to two steps of the grid before it


def evbmf_rank(energies: Tensor, shape: tuple[int, int]) -> int:
    """The rank that empirical variational Bayes matrix factorisation finds in a matrix.

    The matrix is taken for a low-rank one plus Gaussian noise; its variance minimises the free energy, and
    what exceeds a multiple of it is signal (Nakajima et al., "Global analytic solution of fully-observed
    variational Bayesian matrix factorization", JMLR 14, 2013). It knows nothing of data or of a budget, and
    does not depend on the matrix's scale or orientation.

    Args:
        energies: all min(shape) squared singular values, largest first.
        shape: of the matrix, either way round.

    Returns:
        0, where all is noise, … min(shape).
    """
    L, M = sorted(shape)
    largest = energies[0].double()
    if largest <= 0:
        return 0
    # Zero has no logarithm; below 1e-12 of the largest, energies from Gram matrices are rounding.
    x = (energies.double() / largest).clamp_min(1e-12) / M
    alpha = L / M
    tau = 2.5129 * math.sqrt(alpha)
    threshold = (1 + tau) * (1 + alpha / tau)
    variance = _noise_variance(x, alpha, threshold)
    return int((x > variance * threshold).sum())


def _noise_variance(x: Tensor, alpha: float, threshold: float) -> Tensor:
    """The minimiser of the free energy, between the bounds of its theorem; there may be several minima."""
    signals = math.ceil(len(x) / (1 + alpha)) - 1
    noise = x[signals:]
    low, high = torch.maximum(noise[0] / threshold, noise.mean()).log(), x.mean().log()
    for _ in range(_ZOOMS):
        step = (high - low) / (_GRID - 1)
        grid = low + step * torch.arange(_GRID, dtype=x.dtype, device=x.device)
        best = grid[_free_energy(x[:, None] / grid.exp(), alpha, threshold).argmin()]
        low, high = torch.maximum(low, best - step), torch.minimum(high, best + step)
    return best.exp()


def _free_energy(x: Tensor, alpha: float, threshold: float) -> Tensor:
    """Σ over axis 0, of squared singular values in units of M times the noise's variance."""
    centred = x.clamp_min(threshold) - 1 - alpha
    tau = (centred + (centred.square() - 4 * alpha).sqrt()) / 2
    signal = -tau + (tau + 1).log() + alpha * (tau / alpha + 1).log()
    return (x - x.log() + signal.where(x > threshold, 0.0)).sum(0)
