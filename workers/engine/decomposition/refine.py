"""Data-aware alternating least squares for any multilinear form: Tucker, CP, tensor-train and their like."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workers.engine.decomposition.whitening import Root, whitened

Rebuild = Callable[[Sequence[Tensor]], Tensor]

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

    For each factor in turn the error is a linear least-squares problem, solved by conjugate gradients (CGLS,
    Hestenes and Stiefel 1952) from where it stands. Nothing is ever assembled: a step costs one rebuilding,
    its transpose, and a product with each root. In float64 no step raises the error, so that any number of
    sweeps is safe.

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

    def remainder() -> Tensor:
        return whitened((W.double() - rebuild(refined)).flatten(1), right, left)

    error = remainder().square().sum()
    for _ in range(sweeps):
        for turn in range(len(refined)):
            forward = _substituted(refined, rebuild, turn, right, left)
            refined[turn] = _cgls(forward, refined[turn], remainder(), steps)
        before, error = error, remainder().square().sum()
        if error >= before * (1.0 - _SETTLED):
            break
    return [new.to(old.dtype) for new, old in zip(refined, factors, strict=True)]


def _substituted(
    factors: Sequence[Tensor], rebuild: Rebuild, turn: int, right: Root | None, left: Root | None
) -> Callable[[Tensor], Tensor]:
    """The whitened tensor as a linear function of one factor."""

    def forward(factor: Tensor) -> Tensor:
        substituted = [*factors[:turn], factor, *factors[turn + 1 :]]
        return whitened(rebuild(substituted).flatten(1), right, left)

    return forward


def _cgls(forward: Callable[[Tensor], Tensor], x: Tensor, remainder: Tensor, steps: int) -> Tensor:
    """Lower ‖remainder − forward(d)‖ over d, and give x + d.

    The step length is an exact line search rather than its textbook equal: the error then falls however much
    of the directions' conjugacy has been lost to rounding.
    """
    adjoint = torch.func.vjp(forward, x)[1]  # of a linear function it is the same everywhere
    (gradient,) = adjoint(remainder)
    direction = gradient
    for _ in range(steps):
        change = forward(direction)
        slope, curvature = (remainder * change).sum(), change.square().sum()
        if not slope.square() > _NOTHING * curvature * remainder.square().sum():
            break
        x = x + direction * (slope / curvature)
        remainder = remainder - change * (slope / curvature)
        (new,) = adjoint(remainder)
        direction = new + direction * (new.square().sum() / gradient.square().sum())
        gradient = new
    return x
