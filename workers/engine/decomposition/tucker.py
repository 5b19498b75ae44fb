"""Tucker-2: a convolution kernel as a small core between two channel factors."""

from dataclasses import dataclass

import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch import Tensor

from workers.engine.decomposition.spectrum import left_basis

_SWEEPS = 3  # HOOI gains under 0.1 % of the error after the third sweep


@dataclass(frozen=True)
class Hosvd:
    """The higher-order SVD of a kernel along its two channel modes; serves every pair of ranks.

    `factor_out` (C_out, C_out) and `factor_in` (C_in, C_in) have orthonormal columns, most energetic first;
    `core` (C_out, C_in, *k) is the kernel in their coordinates. All float64.
    """

    core: Tensor
    factor_out: Tensor
    factor_in: Tensor

    def relative_errors(self) -> Tensor:
        """Squared truncation error over squared norm for every pair of ranks.

        Returns:
            shape (C_out, C_in): entry [a − 1, b − 1] belongs to ranks (a, b). The factors are orthonormal, so
            the error is exactly the energy of the core outside its leading (a, b) block.
        """
        energy = self.core.flatten(2).square().sum(-1).cumsum(0).cumsum(1)
        total = energy[-1, -1].clamp_min(torch.finfo(energy.dtype).tiny)
        return (1.0 - energy / total).clamp_min(0.0)


def hosvd(W: Tensor) -> Hosvd:
    """The higher-order SVD along modes 0 and 1 (De Lathauwer 2000) of a kernel (C_out, C_in, *k)."""
    factor_out, _ = left_basis(W.flatten(1))
    factor_in, _ = left_basis(W.transpose(0, 1).flatten(1))
    core = torch.einsum("oi...,oa,ib->ab...", W.double(), factor_out, factor_in)
    return Hosvd(core, factor_out, factor_in)


def tucker2(W: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise ‖W − core ×₀ factor_out ×₁ factor_in‖_F by HOOI from the HOSVD (Kim et al. 2016, Tucker-2).

    Args:
        W: shape (C_out, C_in, *k).
        ranks: (r_out, r_in), each from 1 to its channels; a rank above the unfolding's own rank only adds
            directions that carry nothing.

    Returns:
        core (r_out, r_in, *k), factor_out (C_out, r_out), factor_in (C_in, r_in), in W's dtype and device.

    Raises:
        ValueError: a rank is out of range.
    """
    if not all(1 <= rank <= channels for rank, channels in zip(ranks, W.shape[:2], strict=True)):
        raise ValueError(f"ranks {ranks} are outside 1 … {tuple(W.shape[:2])}")
    start = hosvd(W)
    factors = [start.factor_out[:, : ranks[0]], start.factor_in[:, : ranks[1]]]
    if _can_improve(W, ranks):
        factors = _hooi(W.double(), start.core[: ranks[0], : ranks[1]], factors)
    core = torch.einsum("oi...,oa,ib->ab...", W.double(), *factors)
    return core.to(W.dtype), factors[0].to(W.dtype), factors[1].to(W.dtype)


def _can_improve(W: Tensor, ranks: tuple[int, int]) -> bool:
    """Whether a sweep has anything to find: not at full rank, nor where one rank outruns the other."""
    taps = W[0, 0].numel()
    feasible = ranks[0] <= ranks[1] * taps and ranks[1] <= ranks[0] * taps
    return feasible and tuple(ranks) != tuple(W.shape[:2])


def _hooi(W: Tensor, core: Tensor, factors: list[Tensor]) -> list[Tensor]:
    """Alternate between the factors a few times; keep the start where that gives no numbers."""
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        (_, improved), _ = partial_tucker(
            W,
            rank=list(core.shape[:2]),
            modes=[0, 1],
            n_iter_max=_SWEEPS,
            init=(core, factors),
            svd="symeig_svd",
        )
    return list(improved) if all(bool(factor.isfinite().all()) for factor in improved) else factors
