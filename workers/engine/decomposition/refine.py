"""Data-aware alternating least squares for any multilinear form: Tucker, CP, tensor-train and their like."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workers.engine.decomposition.whitening import Root, on_channels

Rebuild = Callable[[Sequence[Tensor]], Tensor]
Linear = Callable[[Tensor], Tensor]

_SETTLED = 1e-3  # a sweep that gains less than this share of the squared error is the last
_NOTHING = 1e-10  # as is a step


def refine(
    factors: Sequence[Tensor],
    rebuild: Rebuild,
    W: Tensor,
    *,
    right: Root | None = None,
    left: Root | None = None,
    sweeps: int = 5,
    steps: int = 10,
) -> list[Tensor]:
    """Lower ‖Rᵀ (W − Ŵ)₍₁₎ L‖_F from given factors, with (·)₍₁₎ the unfolding whose rows are mode 0.

    For each factor in turn the error is a linear least-squares problem, solved by conjugate gradients on its
    normal equations (Hestenes and Stiefel 1952) from where it stands. Nothing is ever assembled: a step costs
    one rebuilding, its transpose, and a product with each second moment, in W's precision. Each step goes as
    far as the error falls along it, so that any number of sweeps is safe.

    Args:
        factors: the start, of any shapes; a factor of zeros beside another stays zeros.
        rebuild: makes Ŵ of W's shape from factors; linear in each one, differentiable, changing none.
        W: the target, shape (m, …).
        right: the root L of the second moment over W's other axes, flattened in order: shape (n, n),
            n = W[0].numel(). For a convolution: of its input patches (C_in, *k), not only of its channels.
        left: the root R of the gradients' second moment, shape (m, m).
        sweeps: over all factors, at most; fewer where one gains under a thousandth.
        steps: of conjugate gradients per factor and sweep, at most.

    Returns:
        new factors, in their dtypes and on their devices.
    """
    refined = [factor.double() for factor in factors]
    weigh = _weigher(W, right, left)

    def remainder() -> Tensor:
        return W.double() - rebuild(refined)

    error = _inner(remainder(), weigh(remainder()))
    least = _NOTHING * _inner(W.double(), weigh(W))  # below, it is rounding
    for _ in range(sweeps):
        before = error
        if error <= least:
            break
        for turn in range(len(refined)):
            refined[turn], error = _descend(
                _substituted(refined, rebuild, turn), weigh, refined[turn], remainder(), error, steps
            )
        if error >= before * (1.0 - _SETTLED):
            break
    return [new.to(old.dtype) for new, old in zip(refined, factors, strict=True)]


def _weigher(W: Tensor, right: Root | None, left: Root | None) -> Linear:
    """X → G X₍₁₎ C, of W's shape: the gradient of half the squared whitened norm of X."""
    C, G = (None if half is None else half.C.to(W.dtype) for half in (right, left))

    def weigh(X: Tensor) -> Tensor:
        rows = X.to(W.dtype).flatten(1)
        rows = rows if C is None else on_channels(C, rows.T).T
        rows = rows if G is None else on_channels(G, rows)
        return rows.reshape(X.shape).double()

    return weigh


def _substituted(factors: Sequence[Tensor], rebuild: Rebuild, turn: int) -> Linear:
    """The tensor as a linear function of one factor."""
    return lambda factor: rebuild([*factors[:turn], factor, *factors[turn + 1 :]])


def _descend(
    forward: Linear, weigh: Linear, x: Tensor, remainder: Tensor, error: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Lower the weighted norm of remainder − forward(d) over d; x + d, and the error there."""
    adjoint = torch.func.vjp(forward, x)[1]  # of a linear function it is the same everywhere
    (gradient,) = adjoint(weigh(remainder))
    direction = gradient
    for _ in range(steps):
        (change,) = adjoint(weigh(forward(direction)))
        slope, curvature = _inner(gradient, direction), _inner(direction, change)
        if not slope.square() > _NOTHING * curvature * error:
            break
        x, error = x + direction * (slope / curvature), error - slope.square() / curvature
        new = gradient - change * (slope / curvature)
        direction = new + direction * (_inner(new, new) / _inner(gradient, gradient))
        gradient = new
    return x, error


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()
