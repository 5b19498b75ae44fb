"""Truncated singular value decomposition of a matrix into two balanced factors, plain or data-aware."""

from torch import Tensor

from workers.engine.decomposition.spectrum import leading_left_vectors
from workers.engine.decomposition.whitening import Root, on_channels, whitened


def truncated_svd(
    W: Tensor, rank: int, *, right: Root | None = None, left: Root | None = None
) -> tuple[Tensor, Tensor]:
    """The two factors that minimise ‖Rᵀ (W − A B) L‖_F at a given rank.

    Without roots this is the plain truncation (Eckart and Young, 1936). `right`, the root of the inputs'
    second moment C = L Lᵀ, makes it the least error of the layer's outputs (DRONE, Chen et al. 2021; SVD-LLM,
    Wang et al. 2024). `left`, the root of the second moment G = R Rᵀ of the loss's gradients at the outputs,
    adds what the loss makes of that error: its Kronecker-factored curvature. The minimum is exact: its square
    is the energy of Rᵀ W L beyond the rank.

    Args:
        W: shape (m, n).
        rank: 1 … min(m, n). At min(m, n) nothing is lost, whatever the roots.
        right: of C, shape (n, n), or smaller, over channels of equally many consecutive columns.
        left: of G, shape (m, m), or smaller, over channels of equally many consecutive rows.

    Returns:
        A of shape (m, rank) and B of shape (rank, n), in W's dtype, on its device. Balanced: a column of A
        and the row of B it meets have equal norms, which keeps later training well conditioned.

    Raises:
        ValueError: the rank is out of range.
    """
    m, n = W.shape
    if not 1 <= rank <= min(m, n):
        raise ValueError(f"rank {rank} is outside 1 … {min(m, n)} of a {m} × {n} matrix")
    if rank == min(m, n):
        right = left = None
    if left is not None and (right is None or (left.floored and not right.floored)):
        B, A = truncated_svd(W.T, rank, right=left, left=right)
        return A.T.contiguous(), B.T.contiguous()
    A, B = _balanced(*_factors(W.double(), rank, right, left))
    return A.to(W.dtype), B.to(W.dtype)


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


def _factors(W: Tensor, rank: int, right: Root | None, left: Root | None) -> tuple[Tensor, Tensor]:
    """R⁻ᵀ U and Uᵀ Rᵀ W, with U the leading left singular vectors of Rᵀ W L: L need not be inverted."""
    U = leading_left_vectors(whitened(W, right, left), rank)
    if left is None:
        return U, U.T @ W
    return on_channels(left.inverse.t(), U), on_channels(left.L, U).T @ W


def _balanced(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The same product from factors of equal norms, component by component."""
    ratio = (B.norm(dim=1) / A.norm(dim=0)).sqrt()
    scale = ratio.where(ratio.isfinite() & (ratio > 0), 1.0)
    return A * scale, B / scale[:, None]
