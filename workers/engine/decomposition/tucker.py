"""Tucker: a tensor as a small core between one factor per mode, plain or data-aware.

A separable weighting, one second moment per mode, turns into mode products: decompose the tensor times the
roots, then take the roots out of the factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.decomposition.spectrum import leading_left_vectors, left_basis
from workers.engine.decomposition.whitening import Root, whitened_modes

SWEEPS = 3  # HOOI gains under 0.1 % of the error after the third sweep

Roots = Sequence[Root | None]


@dataclass(frozen=True)
class Hosvd:
    """The higher-order SVD of a tensor W along its leading modes, in the norm of their `roots`; serves every
    choice of ranks.

    `bases`, one per mode, are square with orthonormal columns, most energetic first; `core` is the weighted
    tensor in their coordinates. Both float64.
    """

    W: Tensor
    roots: Roots
    core: Tensor
    bases: tuple[Tensor, ...]

    def relative_errors(self) -> Tensor:
        """Squared truncation error over squared norm, in the weighted norm, for every choice of ranks.

        Returns:
            one axis per decomposed mode: entry [a − 1, b − 1, …] belongs to ranks (a, b, …). The bases are
            orthonormal, so the error is exactly the energy of the core outside its leading (a, b, …) block;
            HOOI from there never does worse.
        """
        modes = len(self.bases)
        energy = self.core.square().flatten(modes).sum(-1) if modes < self.core.ndim else self.core.square()
        for mode in range(modes):
            energy = energy.cumsum(mode)
        total = energy.flatten()[-1].clamp_min(torch.finfo(energy.dtype).tiny)
        return (1.0 - energy / total).clamp_min(0.0)

    def truncated(self, ranks: Sequence[int], sweeps: int = SWEEPS) -> tuple[Tensor, ...]:
        """Core and factors by sweeps of HOOI from here, as `full_tucker` gives them; raises what it
        raises."""
        sizes = tuple(self.W.shape[: len(self.roots)])
        if not all(1 <= rank <= size for rank, size in zip(ranks, sizes, strict=True)):
            raise ValueError(f"ranks {tuple(ranks)} are outside 1 … {sizes}")
        turned = zip(self.bases, _hooi(self.core, ranks, sweeps), self.roots, strict=True)
        pairs = [_unweighted(basis @ turn, root) for basis, turn, root in turned]
        core = _project(self.W.double(), [dual for _, dual in pairs])
        return core.to(self.W.dtype), *(factor.to(self.W.dtype) for factor, _ in pairs)


def hosvd(W: Tensor, roots: Roots = (None, None)) -> Hosvd:
    """The higher-order SVD (De Lathauwer 2000) along the leading modes of W, one for each root.

    Args:
        W: any shape; for Tucker-2 a kernel (C_out, C_in, *k).
        roots: for each decomposed mode the root of its second moment, or None for the identity.
    """
    weighted = whitened_modes(W, roots)
    bases = tuple(left_basis(unfold(weighted, mode))[0] for mode in range(len(roots)))
    return Hosvd(W, roots, _project(weighted, bases), bases)


def tucker2(
    W: Tensor, ranks: tuple[int, int], *, right: Root | None = None, left: Root | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A kernel's core between two channel factors (Kim et al. 2016), by HOOI from the HOSVD.

    Locally minimises ‖(W − core ×₀ factor_out ×₁ factor_in) ×₀ Rᵀ ×₁ Lᵀ‖_F.

    Args:
        W: shape (C_out, C_in, *k).
        ranks: (r_out, r_in), each from 1 to its channels; a rank above the unfolding's own rank only adds
            directions that carry nothing. A mode at full rank loses nothing, whatever its root.
        right: the root L of the input channels' second moment, shape (C_in, C_in).
        left: the root R of the output channels' gradient second moment, shape (C_out, C_out).

    Returns:
        core (r_out, r_in, *k), factor_out (C_out, r_out), factor_in (C_in, r_in), in W's dtype and device.
        The factors' columns are orthonormal.

    Raises:
        ValueError: a rank is out of range.
    """
    core, factor_out, factor_in = hosvd(W, (left, right)).truncated(ranks)
    return core, factor_out, factor_in


def full_tucker(W: Tensor, ranks: Sequence[int], *, roots: Roots | None = None) -> tuple[Tensor, ...]:
    """Tucker's decomposition on every mode (Tucker 1966; HOOI: De Lathauwer 2000).

    Args:
        W: any shape, e.g. a kernel (C_out, C_in, k_h, k_w) or a recurrent weight (gates, hidden, inputs).
        ranks: one per mode, each from 1 to the mode's size.
        roots: one per mode, of its second moment; None for the identity.

    Returns:
        core of shape `ranks`, then per mode one factor (size, rank) with orthonormal columns, in W's dtype
        and device.

    Raises:
        ValueError: a rank is out of range.
    """
    return hosvd(W, (None,) * W.ndim if roots is None else roots).truncated(ranks)


def _hooi(core: Tensor, ranks: Sequence[int], sweeps: int) -> list[Tensor]:
    """Orthonormal bases (size, rank) of a HOSVD's core, each in turn the best beside the others."""
    sizes = core.shape[: len(ranks)]
    bases = [
        torch.eye(size, rank, dtype=core.dtype, device=core.device)
        for size, rank in zip(sizes, ranks, strict=True)
    ]
    truncated = [mode for mode, basis in enumerate(bases) if basis.shape[1] < basis.shape[0]]
    for _ in range(sweeps if len(truncated) > 1 else 0):
        for mode in truncated:
            others = _project(core, bases, but=mode)
            bases[mode] = leading_left_vectors(unfold(others, mode), ranks[mode])
    return bases


def _unweighted(basis: Tensor, root: Root | None) -> tuple[Tensor, Tensor]:
    """A factor F and its dual D: F Dᵀ projects the mode as the basis projects the weighted one.

    At full rank the projection is the identity, also where a singular root has no inverse to say so.
    """
    if root is None or basis.shape[0] == basis.shape[1]:
        return basis, basis
    Q, T = torch.linalg.qr(root.inverse.T @ basis)
    return Q, root.L @ basis @ T.T


def _project(W: Tensor, bases: Sequence[Tensor], but: int | None = None) -> Tensor:
    for mode, basis in enumerate(bases):
        W = W if mode == but else _mode_product(W, basis.T, mode)
    return W


def _mode_product(W: Tensor, M: Tensor, mode: int) -> Tensor:
    product: Tensor = torch.tensordot(M, W, dims=([1], [mode]))
    return product.movedim(0, mode)


def unfold(W: Tensor, mode: int) -> Tensor:
    """Laid out as a matrix whose rows are one mode: (size of the mode, the others)."""
    return W.movedim(mode, 0).flatten(1)
