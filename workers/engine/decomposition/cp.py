"""CP: a tensor as a sum of outer products (canonical polyadic decomposition), plain or data-aware.

Fitted by alternating least squares with a ridge. While one factor is updated the others have columns of unit
norm, so the ridge λ weighs the components themselves: every update lowers

    ‖T − Σ_r component_r‖² + λ Σ_r ‖component_r‖²,

and the last sum, the degeneracy, stays bounded. Without it components may grow without limit while they
cancel each other, which neither float32 nor fine-tuning survives.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log10, prod
from string import ascii_lowercase

import torch
from torch import Tensor

from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.tucker import Roots, hosvd
from workers.engine.decomposition.whitening import whitened_modes

_DEGENERATE = 100.0  # Σ‖component‖² / ‖T‖² of a fit that is refused; trained kernels stay under 10
_RIDGE = 1e-3  # costs trained kernels no error that can be measured and halves their degeneracy
_TRIAL = 10  # sweeps after which only the best start goes on
_TOLERANCE = 1e-4  # at this pace a hundred more sweeps would gain one percent
_CORRECTIONS = 10  # sweeps of the correction, whose gain is mostly in the first ones
_LEAST_RIDGE = 1e-12  # keeps a singular system solvable; below the rounding of what it solves

_Update = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Cp:
    """W ≈ Σ_r factors[0][:, r] ∘ factors[1][:, r] ∘ …

    `factors`, one per mode, are (size, rank), in W's dtype, on its device; the columns of a component have
    equal norms. `error` is the squared error and `degeneracy` is Σ_r ‖component_r‖², both over ‖W‖², in the
    norm of the roots. `ridge` is the λ it took to keep the degeneracy under 100.
    """

    factors: tuple[Tensor, ...]
    error: float
    degeneracy: float
    ridge: float


def cp(
    W: Tensor,
    rank: int,
    *,
    roots: Roots = (),
    starts: int = 2,
    sweeps: int = 100,
    ridge: float = _RIDGE,
    seed: int = 0,
) -> Cp:
    """Fit `rank` outer products: the same for the same seed, never NaN, never degenerate.

    Of several starts the best goes on: the slices of the HOSVD, each truncated by its SVD, and random ones.
    The error is at most that of the slices (`slice_errors`) plus λ. Where a fit is degenerate, λ is raised
    until it is not; at 0.01 it cannot be. At last the components are made as small as the error reached
    allows (error-preserving correction, Phan et al. 2019 and 2020).

    Args:
        W: two modes or more: for a kernel (C_out, C_in, ∏k), for a recurrent weight (gates, hidden, inputs).
        rank: 1 … `full_rank(W.shape)`, where nothing is lost, whatever the roots.
        roots: for the leading modes the root of their second moment; None for the identity.
        starts: how many to try, the slices being the first.
        sweeps: how often every factor is updated at most.
        ridge: λ to begin with.
        seed: of the random starts.

    Raises:
        ValueError: the rank is out of range.
    """
    _check(W, rank)
    if rank == full_rank(tuple(W.shape)):
        problem = _pose(W, ())
        factors = _slices(problem.T)[0]
        return problem.answer(_Fit(factors, 0.0, _energy(factors[0])), 0.0)
    problem = _pose(W, roots)
    candidates, ridge = _starts(problem.T, rank, starts, seed), max(ridge, _LEAST_RIDGE)
    fit = _best(problem.T, candidates, ridge, sweeps)
    while fit.size > _DEGENERATE:
        ridge *= 10
        fit = _best(problem.T, candidates, ridge, sweeps)
    return problem.answer(_corrected(problem.T, fit), ridge)


def cp_errors(W: Tensor, ranks: Iterable[int], *, roots: Roots = (), sweeps: int = _TRIAL) -> list[float]:
    """Squared relative errors that a few sweeps from the slices reach: what `cp` comes to is below or near.

    No theorem orders them by rank. One decomposition into slices serves all.

    Raises:
        ValueError: a rank is out of range.
    """
    problem = _pose(W, roots)
    components, _ = _slices(problem.T)
    errors = []
    for rank in ranks:
        _check(W, rank)
        start = [factor[:, :rank] for factor in components]
        errors.append(_als(problem.T, start, _RIDGE, sweeps).error)
    return errors


def slice_errors(W: Tensor, *, roots: Roots = ()) -> Tensor:
    """An upper bound of the squared relative error for every rank, from one decomposition.

    Returns:
        shape (full_rank + 1,), float64, falling from 1 to 0.
    """
    return relative_tails(_slices(_pose(W, roots).T)[1])


def full_rank(shape: tuple[int, ...]) -> int:
    """The product of all sizes but the largest: no tensor of this shape needs more components."""
    return prod(shape) // max(shape)


def as_convolutions(factors: Sequence[Tensor], kernel: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The three convolutions that CP makes of one (Lebedev et al. 2015): 1×1, depthwise, 1×1.

    Args:
        factors: of the kernel (C_out, C_in, ∏k).
        kernel: k.

    Returns:
        (rank, C_in, 1, …), (rank, 1, *k) with rank groups, (C_out, rank, 1, …).
    """
    last, first, taps = factors
    ones = (1,) * len(kernel)
    depthwise = taps.T.reshape(-1, 1, *kernel)
    return first.T.reshape(*first.T.shape, *ones), depthwise, last.reshape(*last.shape, *ones)


@dataclass(frozen=True)
class _Fit:
    """Factors of the posed tensor, its squared error, and Σ‖component‖²."""

    factors: list[Tensor]
    error: float
    size: float

    def objective(self, ridge: float) -> float:
        return self.error + ridge * self.size


@dataclass(frozen=True)
class _Problem:
    """The tensor in the norm of its roots, at unit norm, its modes largest first; and the way back."""

    T: Tensor
    norm: Tensor
    order: list[int]
    roots: Roots
    dtype: torch.dtype

    def answer(self, fit: _Fit, ridge: float) -> Cp:
        factors = [
            factor for _, factor in sorted(zip(self.order, fit.factors, strict=True), key=lambda f: f[0])
        ]
        for mode, root in enumerate(self.roots):
            if root is not None:
                factors[mode] = root.inverse.T @ factors[mode]
        factors[0] = factors[0] * self.norm
        balanced = tuple(factor.to(self.dtype) for factor in _balanced(factors))
        return Cp(balanced, fit.error, fit.size, ridge)


def _pose(W: Tensor, roots: Roots) -> _Problem:
    weighted = whitened_modes(W, roots)
    order = sorted(range(W.ndim), key=lambda mode: -W.shape[mode])
    norm = weighted.norm()
    T = (weighted / norm.clamp_min(torch.finfo(norm.dtype).tiny)).permute(order).contiguous()
    return _Problem(T, norm, order, roots, W.dtype)


def _check(W: Tensor, rank: int) -> None:
    full = full_rank(tuple(W.shape))
    if not 1 <= rank <= full:
        raise ValueError(f"rank {rank} is outside 1 … {full} of a tensor {tuple(W.shape)}")


def _slices(T: Tensor) -> tuple[list[Tensor], Tensor]:
    """A CP of T at full rank whose components are orthogonal, largest first, and their energies.

    The small modes are turned to the HOSVD's coordinates; there each slice along the two large modes has an
    SVD of its own, and a component is a singular triple beside a column of every small mode's basis.
    """
    small = hosvd(T.movedim((0, 1), (-2, -1)), (None,) * (T.ndim - 2))
    slices = small.core.reshape(-1, *T.shape[:2])
    energies, V = torch.linalg.eigh(slices.transpose(1, 2) @ slices)
    ordered = energies.clamp_min(0.0).flatten().sort(descending=True, stable=True)
    index, column = ordered.indices // T.shape[1], ordered.indices % T.shape[1]
    left, right = (slices @ V)[index, :, column], V[index, :, column]
    rest = torch.unravel_index(index, T.shape[2:])
    bases = [basis[:, at] for basis, at in zip(small.bases, rest, strict=True)]
    return [left.T, right.T, *bases], ordered.values


def _starts(T: Tensor, rank: int, count: int, seed: int) -> list[list[Tensor]]:
    """The slices and `count` − 1 random starts."""
    generator = torch.Generator().manual_seed(seed)
    random = [
        [torch.randn(size, rank, generator=generator, dtype=T.dtype).to(T.device) for size in T.shape]
        for _ in range(count - 1)
    ]
    return [[factor[:, :rank] for factor in _slices(T)[0]], *random]


def _best(T: Tensor, starts: list[list[Tensor]], ridge: float, sweeps: int) -> _Fit:
    """Every start for some sweeps, the best of them for the rest."""
    trials = [_als(T, start, ridge, min(_TRIAL, sweeps)) for start in starts]
    best = min(trials, key=lambda fit: fit.objective(ridge))
    return _als(T, best.factors, ridge, sweeps - _TRIAL) if sweeps > _TRIAL else best


def _als(T: Tensor, factors: list[Tensor], ridge: float, sweeps: int) -> _Fit:
    """Sweeps that also go on in the direction of the last one, as far as that helps (Bro 1998)."""
    best, step = _sweep(T, factors, _ridge_update(ridge)), 1.0
    trial = best.factors
    for _ in range(sweeps - 1):
        fit = _sweep(T, trial, _ridge_update(ridge))
        gain = best.objective(ridge) - fit.objective(ridge)
        if gain < 0:
            trial, step = best.factors, max(step / 2, 1.0)
            continue
        trial = [new + step * (new - old) for new, old in zip(fit.factors, best.factors, strict=True)]
        best, step = fit, min(step * 1.1, 10.0)
        if gain < _TOLERANCE * best.objective(ridge):
            break
    return best


def _corrected(T: Tensor, fit: _Fit) -> _Fit:
    """Lower Σ‖component‖² at an error no larger than the fit's: each factor is the smallest that keeps it."""
    for _ in range(_CORRECTIONS):
        fit = _sweep(T, fit.factors, _smallest_update(_energy(T), fit.error))
    return fit


def _sweep(T: Tensor, factors: Sequence[Tensor], update: _Update) -> _Fit:
    """Every factor anew from M = T_(n) Z and Γ = Zᵀ Z; Z, of unit columns, stands for all the others."""
    units = [_unit(factor) for factor in factors]
    scaled = update(T.flatten(1) @ _khatri_rao(units[1:]), _gram(units, but=0))
    units[0] = _unit(scaled)
    contracted = (units[0].T @ T.flatten(1)).reshape(-1, *T.shape[1:])
    for mode in range(1, T.ndim):
        M, gram = _contract(contracted, units, but=mode), _gram(units, but=mode)
        scaled = update(M, gram)
        units[mode] = _unit(scaled)
    error = _energy(T) - 2 * float((scaled * M).sum()) + float((scaled @ gram * scaled).sum())
    return _Fit([*units[:-1], scaled], max(error, 0.0), _energy(scaled))


def _ridge_update(ridge: float) -> _Update:
    """The factor that minimises the error plus λ times its own energy."""

    def update(M: Tensor, gram: Tensor) -> Tensor:
        damped = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor: Tensor = torch.linalg.solve(damped, M, left=False)
        return factor

    return update


def _smallest_update(total: float, bound: float) -> _Update:
    """The factor of least energy whose squared error stays within the bound: the largest ridge that does."""

    def update(M: Tensor, gram: Tensor) -> Tensor:
        values, Q = torch.linalg.eigh(gram)
        values, turned = values.clamp_min(0.0), M @ Q
        energies = turned.square().sum(0)

        def error(exponent: float) -> float:
            damped = values + 10**exponent
            return total - float((energies * (2 * damped - values) / damped**2).sum())

        low, high = log10(_LEAST_RIDGE), 3.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if error(middle) <= bound else (low, middle)
        factor: Tensor = turned / (values + 10**low) @ Q.T
        return factor

    return update


def _gram(factors: Sequence[Tensor], but: int) -> Tensor:
    """Zᵀ Z of the Khatri-Rao product Z of all factors but one."""
    others = [factor for mode, factor in enumerate(factors) if mode != but]
    return torch.stack([factor.T @ factor for factor in others]).prod(0)


def _khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Column by column the outer product of all factors: (∏ sizes, rank)."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None] * factor).flatten(0, 1)
    return product


def _contract(contracted: Tensor, factors: Sequence[Tensor], but: int) -> Tensor:
    """(rank, n_1, n_2, …), each n_k but one summed against its factor: shape (n, rank)."""
    axes = ascii_lowercase[: len(factors)]
    others = [mode for mode in range(1, len(factors)) if mode != but]
    terms = ",".join(["z" + axes[1:], *(axes[mode] + "z" for mode in others)])
    return torch.einsum(f"{terms}->{axes[but]}z", contracted, *(factors[mode] for mode in others))


def _unit(factor: Tensor) -> Tensor:
    """Columns of unit norm; zero ones stay zero."""
    norms = factor.norm(dim=0)
    unit: Tensor = factor / norms.where(norms > 0, 1.0)
    return unit


def _balanced(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same components from columns of equal norms; those of a zero component stay as they are."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    weights = norms.prod(0)
    scales = (weights ** (1 / len(factors)) / norms).where(weights > 0, 1.0)
    return [factor * scale for factor, scale in zip(factors, scales, strict=True)]


def _energy(T: Tensor) -> float:
    return float(T.square().sum())
