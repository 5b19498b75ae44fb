"""Data-aware alternating least squares for any multilinear form: Tucker, CP, tensor-train and their like."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.engine.decomposition.whitening import Root, on_channels

Rebuild = Callable[[Sequence[Tensor]], Tensor]
Linear = Callable[[Tensor], Tensor]

_SETTLED = 1e-3  # a sweep that gains less than this share of the squared error is the last
_RIDGE = 1e-6  # of a matrix's mean diagonal, where it is to be inverted
_NOTHING = 1e-10  # of the target's energy: below, an error is rounding; and of the error: so is a step's gain


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
    multiplied into the moments once a turn, so that steps on what is between them are between their ranks,
    and the solution for one side at a time leads the steps. Each goes as far as the error falls along it, so
    that any number of sweeps is safe.

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
    norm, before = _norm(W, right, left), math.inf
    whole = float(_inner(W, norm.pull))
    for _ in range(sweeps):
        for turn, x in enumerate(refined):
            equations = _normal_equations(refined, rebuild, turn, ends, norm)
            seen = equations.hessian(x)
            error = whole - float(_inner(x, 2.0 * equations.wanted - seen))
            if turn == 0:
                if error <= whole * _NOTHING or error >= before * (1.0 - _SETTLED):
                    return _as(factors, refined)
                before = error
            refined[turn] = _descend(equations, x, equations.wanted - seen, error, steps)
    return _as(factors, refined)


def _as(factors: Sequence[Tensor], refined: Sequence[Tensor]) -> list[Tensor]:
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

    def fits(self, inner: Tensor) -> bool:
        """Whether C can be said between an inner factor and what is before it, and is smaller there."""
        size = inner[0].numel()
        return len(inner) < size and (self.C is None or len(self.C) >= size)

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


@dataclass(frozen=True)
class _Equations:
    """The normal equations of one factor, `hessian`(x) = `wanted`. With x as a matrix (len(x), …) the left
    side is about, or exactly, `left` x `right`."""

    hessian: Linear
    wanted: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    def preconditioner(self) -> Linear:
        """What solves them if that is exact."""
        on_left, on_right = _solver(self.left), _solver(self.right)
        return lambda x: on_left(on_right(x.flatten(1).T).T).reshape(x.shape)


def _solver(M: Tensor | None) -> Linear:
    """W → (M + ε)⁻¹ W for a positive semidefinite M, as `on_channels` multiplies; W itself where there is
    none."""
    if M is None:
        return lambda W: W
    full = (M.diag() if M.ndim == 1 else M).double()
    L, info = torch.linalg.cholesky_ex(full + _RIDGE * full.diagonal().mean() * _eye(len(full), full))
    if info:
        return lambda W: W
    return lambda W: torch.cholesky_solve(W.reshape(len(full), -1), L).reshape(W.shape)


def _normal_equations(
    factors: Sequence[Tensor], rebuild: Rebuild, turn: int, ends: Ends, norm: _Norm
) -> _Equations:
    x, others = factors[turn], list(factors)
    if turn == ends.inner and norm.C is not None and norm.C.shape == (norm.pull[0].numel(),) * 2:
        others[turn] = _identity(x, len(x))
        return _of_inner(rebuild(others), x, norm, norm.C)
    if ends.inner is not None and ends.inner != turn and norm.fits(factors[ends.inner]):
        inner = factors[ends.inner]
        others[ends.inner], norm = _identity(inner, len(inner)), norm.before(inner)
    if turn == ends.outer:
        others[turn] = _identity(x, x.shape[1])
        return _of_outer(rebuild(others), x, norm)
    if ends.outer is not None and factors[ends.outer].shape[1] < len(factors[ends.outer]):
        outer = factors[ends.outer]
        others[ends.outer], norm = _identity(outer, outer.shape[1]), norm.after(outer)
    return _of_any(lambda factor: rebuild([*others[:turn], factor, *others[turn + 1 :]]), x, norm)


def _of_any(forward: Linear, x: Tensor, norm: _Norm) -> _Equations:
    """Of a factor of which the tensor is a linear function."""
    start, adjoint, *_ = torch.func.vjp(forward, x)  # of a linear function the adjoint is one everywhere
    alone = start.shape == x.shape and torch.equal(start, x)

    def hessian(factor: Tensor) -> Tensor:
        return _only(adjoint(norm.weigh(forward(factor)).double()))

    wanted = _only(adjoint(norm.pull.double()))
    return _Equations(hessian, wanted, norm.G, norm.C) if alone else _Equations(hessian, wanted)


def _of_outer(rest: Tensor, outer: Tensor, norm: _Norm) -> _Equations:
    """Of an outer factor A, with X₍₁₎ = A Z for the rest Z (r, …)."""
    Z = rest.to(norm.pull.dtype)
    seen = _weighed(Z, None, norm.C, Z.dtype).flatten(1) @ Z.flatten(1).T

    def hessian(factor: Tensor) -> Tensor:
        return _weighed(factor.flatten(1), norm.G, seen, Z.dtype).double().reshape(factor.shape)

    wanted = (norm.pull.flatten(1) @ Z.flatten(1).T).double().reshape(outer.shape)
    return _Equations(hessian, wanted, norm.G, seen)


def _of_inner(rest: Tensor, inner: Tensor, norm: _Norm, C: Tensor) -> _Equations:
    """Of an inner factor V (r, q), with X₍₁₎ = A (V ⊗ I) for the rest A (m, r, t): V ⊗ I, most of it zeros,
    is never made."""
    A = rest.to(C.dtype).reshape(len(rest), len(inner), -1)
    taps, size = A.shape[2], inner[0].numel()
    K = torch.einsum("mrt,msu->rtsu", A, A if norm.G is None else on_channels(norm.G, A))
    moment = C.reshape(size, taps, size, taps)

    def hessian(factor: Tensor) -> Tensor:
        seen = torch.einsum("sp,puqt->suqt", factor.flatten(1).to(C.dtype), moment)
        return torch.einsum("rtsu,suqt->rq", K, seen).double().reshape(factor.shape)

    wanted = torch.einsum("mrt,mqt->rq", A, norm.by_taps(inner)).double().reshape(inner.shape)
    one_tap = (torch.einsum("rtst->rs", K), torch.einsum("ptqt->pq", moment) / taps)
    return _Equations(hessian, wanted, *one_tap)


def _identity(factor: Tensor, channels: int) -> Tensor:
    return _eye(channels, factor).reshape(channels, channels, *(1 for _ in factor.shape[2:]))


def _eye(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def _descend(equations: _Equations, x: Tensor, gradient: Tensor, error: float, steps: int) -> Tensor:
    """Preconditioned conjugate gradients from x, where the squared error is `error`, falling along
    `gradient`."""
    precondition = equations.preconditioner()
    direction = led = precondition(gradient)
    for _ in range(steps):
        change = equations.hessian(direction)
        slope, curvature = _inner(gradient, direction), _inner(direction, change)
        if not slope.square() > _NOTHING * curvature * error:
            break
        x = x + direction * (slope / curvature)
        new = gradient - change * (slope / curvature)
        before, led = _inner(gradient, led), precondition(new)
        direction = led + direction * (_inner(new, led) / before)
        gradient = new
    return x


def _only(found: tuple[Tensor]) -> Tensor:
    return found[0]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()
