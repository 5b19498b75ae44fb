"""Truncated singular value decomposition of a matrix into two balanced factors."""

import torch
from torch import Tensor

from workers.engine.decomposition.spectrum import left_basis


def truncated_svd(W: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors that minimise ‖W − A B‖_F at a given rank (Eckart and Young, 1936).

    Args:
        W: shape (m, n).
        rank: 1 … min(m, n).

    Returns:
        A = U_r S_r^½ of shape (m, rank) and B = S_r^½ V_rᵀ of shape (rank, n), in W's dtype, on its device.
        Balanced factors have equal norms, which keeps later training well conditioned.

    Raises:
        ValueError: the rank is out of range.
    """
    m, n = W.shape
    if not 1 <= rank <= min(m, n):
        raise ValueError(f"rank {rank} is outside 1 … {min(m, n)} of a {m} × {n} matrix")
    if m > n:
        B, A = truncated_svd(W.T, rank)
        return A.T.contiguous(), B.T.contiguous()
    U, energies = left_basis(W)
    U, root = U[:, :rank], _quarter_power(energies[:rank])
    A, B = U * root, (U.T @ W.double()) / root[:, None]
    return A.to(W.dtype), B.to(W.dtype)


def _quarter_power(energies: Tensor) -> Tensor:
    """S^½ from S², with 1 where S vanishes: that component contributes nothing, whatever its scale."""
    floor = energies[:1].clamp_min(torch.finfo(torch.float64).tiny) * torch.finfo(torch.float64).eps
    return torch.where(energies > floor, energies, torch.ones_like(energies)) ** 0.25
