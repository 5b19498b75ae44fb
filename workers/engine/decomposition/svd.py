"""Truncated singular value decomposition of a matrix into two balanced factors, plain or data-aware."""

import torch
from torch import Tensor

from workers.engine.decomposition.spectrum import left_basis
from workers.engine.decomposition.whitening import Root, on_channels, whitened


class Svd:
    """The singular value decomposition of Rᵀ W L: one for every rank.

    Args:
        W: shape (m, n).
        right: L, the root of the inputs' second moment C = L Lᵀ, shape (n, n), or smaller, over channels of
            equally many consecutive columns.
        left: R, that of the second moment of the loss's gradients at the outputs, G = R Rᵀ, shape (m, m), or
            smaller, over channels of equally many consecutive rows.

    `energies` are the squared singular values, largest first, shape (min(m, n),), float64.
    """

    def __init__(self, W: Tensor, right: Root | None = None, left: Root | None = None) -> None:
        # From the side whose root has an inverse: of the other one it need not be taken.
        self._turned = left is not None and (right is None or (left.floored and not right.floored))
        self._W, right, self._left = (W.T, left, right) if self._turned else (W, right, left)
        M = whitened(self._W, right, self._left)
        wide = M.shape[0] <= M.shape[1]
        basis, self.energies = left_basis(M if wide else M.T)
        # The left singular vectors, or multiples of them: some singular values may be zero.
        self._directions = basis if wide else M @ basis

    def truncated(self, rank: int) -> tuple[Tensor, Tensor]:
        """The factors of one rank, as `truncated_svd` gives them; raises what it raises."""
        A, B = (factor.to(self._W.dtype) for factor in _balanced(*self._factors(rank)))
        return (B.T.contiguous(), A.T.contiguous()) if self._turned else (A, B)

    def _factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """R⁻ᵀ U and Uᵀ Rᵀ W, with U the leading left singular vectors of Rᵀ W L: L need not be inverted."""
        W = self._W.double()
        m, n = W.shape
        if not 1 <= rank <= min(m, n):
            raise ValueError(f"rank {rank} is outside 1 … {min(m, n)} of a {m} × {n} matrix")
        if rank == min(m, n):
            one = torch.eye(rank, dtype=W.dtype, device=W.device)
            return (one, W) if m <= n else (W, one)
        U = self._directions[:, :rank]
        U = U if m <= n else torch.linalg.qr(U)[0]
        if self._left is None:
            return U, U.T @ W
        return on_channels(self._left.inverse.t(), U), on_channels(self._left.L, U).T @ W


def truncated_svd(
    W: Tensor, rank: int, *, right: Root | None = None, left: Root | None = None
) -> tuple[Tensor, Tensor]:
    """The two factors that minimise ‖Rᵀ (W − A B) L‖_F at a given rank.

    Without roots this is the plain truncation (Eckart and Young, 1936). `right` makes it the least error of
    the layer's outputs (DRONE, Chen et al. 2021; SVD-LLM, Wang et al. 2024). `left` adds what the loss makes
    of that error: its Kronecker-factored curvature. The minimum is exact: its square is the energy of Rᵀ W L
    beyond the rank.

    Args:
        W, right, left: as for `Svd`.
        rank: 1 … min(m, n). At min(m, n) nothing is lost, whatever the roots.

    Returns:
        A of shape (m, rank) and B of shape (rank, n), in W's dtype, on its device. Balanced: a column of A
        and the row of B it meets have equal norms, which keeps later training well conditioned.

    Raises:
        ValueError: the rank is out of range.
    """
    return Svd(W, right, left).truncated(rank)


def corrected_bias(bias: Tensor | None, W: Tensor, A: Tensor, B: Tensor, mean: Tensor) -> Tensor:
    """b + (W − A B) E[x]: the best bias beside given factors, exactly.

    With it the layer's mean output is the original's, and what remains of the error is its variance. Factors
    by the centred second moment, E[x xᵀ] − E[x] E[x]ᵀ, and this bias minimise E‖W x + b − A B x − b'‖²
    together.

    Args:
        bias: shape (m,), or None for zeros.
        W: shape (m, n); A (m, r), B (r, n) its factors; mean E[x], shape (n,).

    Returns:
        shape (m,), in W's dtype.
    """
    x = mean.double()
    correction = W.double() @ x - A.double() @ (B.double() @ x)
    return (correction if bias is None else bias.double() + correction).to(W.dtype)


def _balanced(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The same product from factors of equal norms, component by component."""
    ratio = (B.norm(dim=1) / A.norm(dim=0)).sqrt()
    scale = ratio.where(ratio.isfinite() & (ratio > 0), 1.0)
    return A * scale, B / scale[:, None]
