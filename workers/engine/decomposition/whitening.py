"""Square roots of second moments: they turn a data-aware error into a plain Frobenius norm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# A direction whose energy is below this share of the largest is rounding, not data. An inverse of the root of
# what remains still leaves ten digits of a product with it.
_FLOOR = 1e-12
_ITERATIONS = 4


@dataclass(frozen=True)
class Root:
    """A square root of a symmetric positive semidefinite matrix C (n, n). All float64.

    `L` (n, n) with C = L Lᵀ. A diagonal C has its root and inverse as diagonals, (n,): nothing of n × n is
    ever made. `floored` says that C was numerically singular: the smallest directions were taken to be zero.
    """

    C: Tensor
    L: Tensor
    floored: bool
    invert: Callable[[], Tensor]

    @cached_property
    def inverse(self) -> Tensor:
        """(n, n): L⁻¹, or its pseudo-inverse on the support of a singular C. Made when first asked for: most
        decompositions need none of a large root."""
        return self.invert()


def root(C: Tensor) -> Root:
    """The square root of a second moment C (n, n), or (n,) for a diagonal one: Cholesky's where it serves,
    else by eigenvalues.

    Never NaN: eigenvalues below 1e-12 of the largest count as zero, so that a rank-deficient C gives a root
    of its support, and a zero C gives zeros.

    Raises:
        ValueError: C has a NaN or an infinity.
    """
    C = _checked(C)
    if C.ndim == 1:
        scales = _scales(C)
        return Root(C, scales.of, scales.floored, lambda: scales.inverse)
    L, info = torch.linalg.cholesky_ex(C)
    if info or _condition(C, L) > len(C) / _FLOOR:
        return _root_of_support(C)
    return Root(C, L, False, lambda: _inverse(L))


def _inverse(L: Tensor) -> Tensor:
    one = torch.eye(len(L), dtype=L.dtype, device=L.device)
    inverse: Tensor = torch.linalg.solve_triangular(L, one, upper=False)
    return inverse


def _condition(C: Tensor, L: Tensor) -> float:
    """The trace of C over its smallest eigenvalue, by inverse iteration: no less than the condition number.

    A few steps serve: what matters is the order of magnitude.
    """
    generator = torch.Generator(C.device).manual_seed(0)
    x = torch.randn(len(C), 1, dtype=C.dtype, device=C.device, generator=generator)
    for _ in range(_ITERATIONS):
        x = torch.cholesky_solve(x / x.norm(), L)
    return float(C.trace() * x.norm())


@dataclass(frozen=True)
class _Scales:
    of: Tensor
    inverse: Tensor
    floored: bool


def _root_of_support(C: Tensor) -> Root:
    energies, U = torch.linalg.eigh(C)
    scales = _scales(energies)
    return Root(C, U * scales.of, True, lambda: (U * scales.inverse).T)


def _scales(energies: Tensor) -> _Scales:
    """The roots of eigenvalues, and their inverses on the support."""
    support = energies > energies.max().clamp_min(torch.finfo(energies.dtype).tiny) * _FLOOR
    scale = energies.where(support, 0.0).sqrt()
    return _Scales(scale, 1.0 / scale.where(support, torch.inf), not bool(support.all()))


def shrink(C: Tensor, amount: float) -> Tensor:
    """(1 − a) C + a (tr C / n) I in float64: trust in a second moment of few samples (Ledoit and Wolf, 2004).

    Args:
        C: shape (n, n), or (n,) for a diagonal one, whose result is diagonal too.
        amount: a, from 0 (C itself) to 1 (no direction preferred).

    Raises:
        ValueError: C has a NaN or an infinity, or the amount is out of range.
    """
    if not 0.0 <= amount <= 1.0:
        raise ValueError(f"a shrinkage of {amount} is outside 0 … 1")
    C = _checked(C)
    if C.ndim == 1:
        return (1.0 - amount) * C + amount * C.mean()
    return (1.0 - amount) * C + amount * C.trace() / len(C) * torch.eye(
        len(C), dtype=C.dtype, device=C.device
    )


def whitened(W: Tensor, right: Root | None, left: Root | None) -> Tensor:
    """Rᵀ W L in float64 for W (m, n), C = L Lᵀ (n, n) and G = R Rᵀ (m, m); no root means the identity.

    Its Frobenius norm is the data-aware one: ‖Rᵀ W L‖²_F = tr(G W C Wᵀ). A root may also be over channels
    of t consecutive columns (or rows) each: it then weights the t taps of a channel alike, as L ⊗ I.
    """
    W = W.double()
    if right is not None:
        W = on_channels(right.L.t(), W.T).T
    return W if left is None else on_channels(left.L.t(), W)


def on_channels(M: Tensor, W: Tensor) -> Tensor:
    """(M ⊗ I) W for M (c, c), or (c,) for a diagonal one, and W of c · t rows, t taps a channel: like W."""
    channels = W.reshape(len(M), -1)
    return (M[:, None] * channels if M.ndim == 1 else M @ channels).reshape(W.shape)


def whitened_modes(W: Tensor, roots: Sequence[Root | None]) -> Tensor:
    """W ×₀ R₀ᵀ ×₁ R₁ᵀ … in float64: its leading modes where each second moment is the identity.

    Args:
        W: any shape.
        roots: one for each leading mode, over its size; None for the identity.
    """
    weighted = W.double()
    for mode, root in enumerate(roots):
        if root is not None:
            weighted = torch.tensordot(root.L.T, weighted, dims=([1], [mode])).movedim(0, mode)
    return weighted


def _checked(C: Tensor) -> Tensor:
    if not bool(C.isfinite().all()):
        raise ValueError("a second moment has a NaN or an infinity")
    return C.double()
