"""Data-aware alternating least squares for any multilinear form: Tucker, CP, tensor-train and their like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.engine.decomposition.whitening import Root, on_channels

Rebuild = Callable[[Sequence[Tensor]], Tensor]
Linear = Callable[[Tensor], Tensor]

_SETTLED = 1e-3  # a sweep that gains less than this share of the squared error is the last
_NOTHING = 1e-10  # as is a step


@dataclass(frozen=True)
class Ends:
    """Factors that an identity may stand in for: `outer` (m, r, 1, …) makes mode 0 of r channels; `inner`
    (r, c, …) makes r channels of mode 1, and of the modes after it that are longer than 1 in it."""

    outer: int | None = None
    inner: int | None = None


def refine(
    factors: Sequence[Tensor],
    rebuild: Rebuild,
    W: Tensor,
    *,
    right: Root | None = None,
    left: Root | None = None,
    ends: Ends = Ends(),
    sweeps: int = 5,
    steps: int = 10,
) -> list[Tensor]:
    """Lower ‖Rᵀ (W − Ŵ)₍₁₎ L‖_F from given factors, with (·)₍₁₎ the unfolding whose rows are mode 0.

    For each factor in turn the error is a linear least-squares problem, solved by conjugate gradients on its
    normal equations (Hestenes and Stiefel 1952) from where it stands. Nothing is ever assembled: a step costs
    one rebuilding, its transpose, and a product with each second moment, in W's precision. Ends are
    multiplied into the moments once a turn, so that steps on what is between them are between their ranks.
    Each step goes as far as the error falls along it, so that any number of sweeps is safe.

    Args:
        factors: the start, of any shapes; a factor of zeros beside another stays zeros.
        rebuild: makes Ŵ of W's shape from factors; linear in each one, differentiable, changing none.
        W: the target, shape (m, …).
        right: the root L of the second moment over W's other axes, flattened in order: shape (n, n),
            n = W[0].numel(). For a convolution: of its input patches (C_in, *k), not only of its channels.
        left: the root R of the gradients' second moment, shape (m, m).
        ends: for W (m, c, *k), where there are such factors.
        sweeps: over all factors, at most; fewer where one gains under a thousandth.
        steps: of conjugate gradients per factor and sweep, at most.

    Returns:
        new factors, in their dtypes and on their devices.
    """
    refined = [factor.double() for factor in factors]
    norm = _norm(W, right, left)
    remainder = W.double() - rebuild(refined)
    error = _inner(remainder, norm.weigh(remainder))
    least = _NOTHING * _inner(W.double(), norm.pull)  # below, it is rounding
    for _ in range(sweeps):
        before = error
        if error <= least:
            break
        for turn, x in enumerate(refined):
            hessian, wanted = _normal_equations(refined, rebuild, turn, ends, norm)
            refined[turn], error = _descend(hessian, x, wanted - hessian(x), error, steps)
        if error >= before * (1.0 - _SETTLED):
            break
    return [new.to(old.dtype) for new, old in zip(refined, factors, strict=True)]


@dataclass(frozen=True)
class _Norm:
    """Of tensors X (m, …) by the moments G (m, m) and C (n, n): tr(G X₍₁₎ C X₍₁₎ᵀ). The `pull` towards the
    target W is G W₍₁₎ C."""

    G: Tensor | None
    C: Tensor | None
    pull: Tensor

    def weigh(self, X: Tensor) -> Tensor:
        """G X₍₁₎ C, of X's shape: the gradient of half the squared norm."""
        return _weighed(X, self.G, self.C, self.pull.dtype)

    def after(self, outer: Tensor) -> "_Norm":
        """The norm of A X, by X, for an outer factor A."""
        A = outer.flatten(1).T.to(self.pull.dtype)
        return replace(self, G=_across(self.G, A), pull=torch.tensordot(A, self.pull, 1))

    def before(self, inner: Tensor) -> "_Norm":
        """The norm of X (V ⊗ I), by X, for an inner factor V."""
        V = inner.flatten(1).to(self.pull.dtype)
        pull = torch.einsum("mqt,rq->mrt", self.by_taps(inner), V)
        taps = (1 if own > 1 else k for own, k in zip(inner.shape[2:], self.pull.shape[2:], strict=True))
        return replace(self, C=_across(self.C, V), pull=pull.reshape(len(pull), len(V), *taps))

    def by_taps(self, inner: Tensor) -> Tensor:
        """The pull (m, q, t): what the inner factor (r, q) multiplies, and t taps that it leaves alone."""
        return self.pull.reshape(len(self.pull), inner[0].numel(), -1)


def _norm(W: Tensor, right: Root | None, left: Root | None) -> _Norm:
    C, G = (None if half is None else half.C.to(W.dtype) for half in (right, left))
    return _Norm(G, C, _weighed(W, G, C, W.dtype))


def _weighed(X: Tensor, G: Tensor | None, C: Tensor | None, dtype: torch.dtype) -> Tensor:
    rows = X.to(dtype).flatten(1)
    rows = rows if C is None else on_channels(C, rows.T).T
    rows = rows if G is None else on_channels(G, rows)
    return rows.reshape(X.shape)


def _across(moment: Tensor | None, V: Tensor) -> Tensor:
    """(V ⊗ I) M (V ⊗ I)ᵀ for V (r, c) and a moment M over c channels of some taps each."""
    if moment is None:
        return V @ V.T
    M = moment.diag() if moment.ndim == 1 else moment
    half = (V @ M.reshape(V.shape[1], -1)).reshape(-1, len(M))
    return (V @ half.T.reshape(V.shape[1], -1)).reshape(len(half), -1)


def _between(factors: Sequence[Tensor], ends: Ends, turn: int, norm: _Norm) -> tuple[list[Tensor], _Norm]:
    """Identities in the places of ends that have no turn and fewer channels inside; the norm between them."""
    others = list(factors)
    if ends.outer is not None and ends.outer != turn:
        outer = factors[ends.outer]
        if outer.shape[1] < outer.shape[0]:
            others[ends.outer], norm = _identity(outer, outer.shape[1]), norm.after(outer)
    if ends.inner is not None and ends.inner != turn:
        inner = factors[ends.inner]
        size = inner[0].numel()
        if len(inner) < size and (norm.C is None or len(norm.C) >= size):
            others[ends.inner], norm = _identity(inner, inner.shape[0]), norm.before(inner)
    return others, norm


def _identity(factor: Tensor, channels: int) -> Tensor:
    one = torch.eye(channels, dtype=factor.dtype, device=factor.device)
    return one.reshape(channels, channels, *(1 for _ in factor.shape[2:]))


def _normal_equations(
    factors: Sequence[Tensor], rebuild: Rebuild, turn: int, ends: Ends, norm: _Norm
) -> tuple[Linear, Tensor]:
    """What the factor solves whose turn it is: the left side, as a function of it, and the right one."""
    x = factors[turn]
    if turn == ends.inner and norm.C is not None and norm.C.shape == (norm.pull[0].numel(),) * 2:
        rest = rebuild([*factors[:turn], _identity(x, len(x)), *factors[turn + 1 :]])
        return _of_inner(rest, x, norm, norm.C)
    others, between = _between(factors, ends, turn, norm)

    def forward(factor: Tensor) -> Tensor:
        return rebuild([*others[:turn], factor, *others[turn + 1 :]])

    adjoint = torch.func.vjp(forward, x)[1]  # of a linear function it is the same everywhere

    def hessian(factor: Tensor) -> Tensor:
        return _only(adjoint(between.weigh(forward(factor)).double()))

    return hessian, _only(adjoint(between.pull.double()))


def _of_inner(rest: Tensor, inner: Tensor, norm: _Norm, C: Tensor) -> tuple[Linear, Tensor]:
    """The same for an inner factor V, with X₍₁₎ = A (V ⊗ I) for the rest A (m, r, t): (V ⊗ I) has t² times
    as many entries as V, most of them zeros, and is never made."""
    A = rest.to(C.dtype).reshape(len(rest), len(inner), -1)
    taps, size = A.shape[2], inner[0].numel()
    K = torch.einsum("mrt,msu->rtsu", A, A if norm.G is None else on_channels(norm.G, A))
    moment = C.reshape(size, taps, size, taps)

    def hessian(factor: Tensor) -> Tensor:
        seen = torch.einsum("sp,puqt->suqt", factor.flatten(1).to(C.dtype), moment)
        return torch.einsum("rtsu,suqt->rq", K, seen).double().reshape(factor.shape)

    return hessian, torch.einsum("mrt,mqt->rq", A, norm.by_taps(inner)).double().reshape(inner.shape)


def _descend(
    hessian: Linear, x: Tensor, gradient: Tensor, error: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Conjugate gradients from x, where the error falls along `gradient`: another x, and the error there."""
    direction = gradient
    for _ in range(steps):
        change = hessian(direction)
        slope, curvature = _inner(gradient, direction), _inner(direction, change)
        if not slope.square() > _NOTHING * curvature * error:
            break
        x, error = x + direction * (slope / curvature), error - slope.square() / curvature
        new = gradient - change * (slope / curvature)
        direction = new + direction * (_inner(new, new) / _inner(gradient, gradient))
        gradient = new
    return x, error


def _only(found: tuple[Tensor]) -> Tensor:
    return found[0]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()
