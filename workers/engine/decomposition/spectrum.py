"""Eigen-decompositions of Gram matrices: the cheap road to singular values and vectors."""

import torch
from torch import Tensor

from workers.engine.decomposition.whitening import Root, whitened


def left_basis(W: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors and squared singular values of a matrix, largest first, in float64.

    Args:
        W: shape (m, n).

    Returns:
        U of shape (m, m) with orthonormal columns, and squared singular values of shape (m,), never negative.

    W Wᵀ = U S² Uᵀ costs O(m² n) instead of an SVD's O(m n²) for m < n. Squaring halves the digits: singular
    values below about 1e-8 of the largest are noise, far under what a float32 weight carries.
    """
    W = W.double()
    energies, U = torch.linalg.eigh(W @ W.T)
    return U.flip(1), energies.flip(0).clamp_min(0.0)


def leading_left_vectors(M: Tensor, rank: int) -> Tensor:
    """The first left singular vectors of a matrix (m, n): shape (m, rank), orthonormal, rank ≤ m, float64.

    Beyond the matrix's own rank they are any that complete the basis.
    """
    m, n = M.shape
    if m <= n or rank > n:
        return left_basis(M)[0][:, :rank]
    # QR instead of a division by the singular values: some of them may be zero.
    U: Tensor = torch.linalg.qr(M.double() @ left_basis(M.T)[0][:, :rank])[0]
    return U


def singular_energies(W: Tensor, right: Root | None = None, left: Root | None = None) -> Tensor:
    """Squared singular values of Rᵀ W L, largest first: shape (min(m, n),), float64.

    Args:
        W: shape (m, n).
        right: the root L of the inputs' second moment, over the columns or over channels of them; None for
            the identity.
        left: the root R of the gradients' second moment, over the rows or over channels of them; likewise.
    """
    M = whitened(W, right, left)
    gram = M @ M.T if M.shape[0] <= M.shape[1] else M.T @ M
    energies: Tensor = torch.linalg.eigvalsh(gram)
    return energies.flip(0).clamp_min(0.0)


def relative_tails(energies: Tensor) -> Tensor:
    """The fraction of energy that truncation discards, for every rank.

    Args:
        energies: squared singular values, largest first, shape (k,).

    Returns:
        shape (k + 1,): entry r is Σ_{i≥r} energies[i] / Σ energies; entry k is 0. All zero for a zero matrix.
    """
    tails = torch.cat([energies.flip(0).cumsum(0).flip(0), energies.new_zeros(1)])
    return tails / tails[0].clamp_min(torch.finfo(tails.dtype).tiny)
