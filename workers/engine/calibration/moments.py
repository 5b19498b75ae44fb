"""Second moments of one weight's inputs and of its outputs' gradients, and the weighting made of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from workers.engine.decomposition.whitening import Root, root, shrink
from workers.engine.layers.weighting import PLAIN, Weighting

Sides = Literal["none", "inputs", "two_sided"]

# How far a second moment is drawn toward the identity at least: gradients say less about unseen data than
# inputs.
_SHRINK_INPUTS = 0.1
_SHRINK_OUTPUTS = 0.3
_CLIP = 10.0  # a position's gradient counts between a tenth and ten times the mean norm


@dataclass
class Moments:
    """Sums over the positions seen so far. Float64, on the CPU.

    inputs Σ x xᵀ (n, n), or its diagonal (n,) where the inputs are one-hot, and their sum (n,) over `count`
    positions; outputs Σ g gᵀ (m, m) over `output_count` positions, where g is the gradient at one position,
    or what a tied head multiplies (`tied`); None where nothing was seen.
    """

    inputs: Tensor
    total: Tensor
    count: int = 0
    outputs: Tensor | None = None
    output_count: int = 0
    tied: bool = False

    @classmethod
    def empty(cls, n: int, *, one_hot: bool = False, tied: bool = False) -> "Moments":
        """Of a weight with n inputs."""
        shape = (n,) if one_hot else (n, n)
        zeros = torch.zeros(shape, dtype=torch.float64)
        return cls(zeros, torch.zeros(n, dtype=torch.float64), tied=tied)

    def see_inputs(self, X: Tensor) -> None:
        """Add vectors (positions, n); of one-hot inputs how often each occurred, (n,)."""
        X = X.detach()
        if X.ndim == 1:
            self.inputs += X.double().cpu()
            self.count += round(float(X.sum()))
        else:
            self.inputs += (X.T @ X).cpu()
            self.total += X.sum(0).double().cpu()
            self.count += len(X)

    def see_gradients(self, gradients: Tensor) -> None:
        """Add gradients (positions, m), those of outlying positions clipped."""
        norms = gradients.norm(dim=1)
        mean = norms.mean()
        if mean > 0:
            wanted = norms.clamp(mean / _CLIP, mean * _CLIP)
            gradients = gradients * (wanted / norms).where(norms > 0, 0.0)[:, None]
        self.see_outputs(gradients)

    def see_outputs(self, vectors: Tensor) -> None:
        """Add vectors (positions, m) as they are."""
        vectors = vectors.detach()
        moment = (vectors.T @ vectors).cpu()
        if self.outputs is None:
            self.outputs = moment.double()
        else:
            self.outputs += moment
        self.output_count += len(vectors)

    def plus(self, other: "Moments") -> "Moments":
        """What both have seen of the same weight."""
        seen = [each.outputs for each in (self, other) if each.outputs is not None]
        return Moments(
            self.inputs + other.inputs,
            self.total + other.total,
            self.count + other.count,
            sum(seen[1:], seen[0]) if seen else None,
            self.output_count + other.output_count,
            self.tied,
        )

    def save(self, path: Path) -> None:
        """Write to a .npz file."""
        outputs = np.empty((0, 0)) if self.outputs is None else self.outputs.numpy()
        counts = np.array([self.count, self.output_count, self.tied])
        with path.open("wb") as file:
            np.savez(
                file, counts=counts, inputs=self.inputs.numpy(), total=self.total.numpy(), outputs=outputs
            )

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            count, output_count, tied = map(int, stored["counts"])
            outputs = torch.from_numpy(stored["outputs"]) if output_count else None
            inputs, total = torch.from_numpy(stored["inputs"]), torch.from_numpy(stored["total"])
        return cls(inputs, total, count, outputs, output_count, bool(tied))


def weighting(moments: Moments, sides: Sides, *, centred: bool) -> Weighting:
    """The weighting by what was seen: by the inputs alone, or by the gradients too.

    The inputs' second moment is taken about their mean where the bias can take the mean up. Both are shrunk,
    the more the fewer positions were seen than there are dimensions. Nothing seen is no weighting.
    """
    if sides == "none" or moments.count == 0:
        return PLAIN
    mean = moments.total / moments.count if centred else None
    right, left = _right(moments, mean), None
    if moments.outputs is not None and (moments.tied or sides == "two_sided"):
        left = _left(moments)
    warnings = [warning for half in (right, left) if half for warning in half.warnings]
    return Weighting(right.root, left.root if left else None, mean, tuple(warnings))


@dataclass(frozen=True)
class _Half:
    """One side's root, and what the user should hear about it."""

    root: Root
    warnings: tuple[str, ...]


def _right(moments: Moments, mean: Tensor | None) -> _Half:
    raw, n = moments.inputs / moments.count, len(moments.inputs)
    spread = raw if mean is None else raw - torch.outer(mean, mean)
    amount = _shrinkage(_SHRINK_INPUTS, n, moments.count)
    thin = (
        f"calibrated on {moments.count} positions for {n} inputs: "
        f"their second moment is singular and was shrunk by {amount:.2f}"
    )
    # Shrunk toward the scale of the uncentred moment: inputs that hardly vary still count.
    identity = raw.mean().expand(n) if raw.ndim == 1 else torch.eye(n, dtype=raw.dtype) * raw.trace() / n
    half = _half((1.0 - amount) * spread + amount * identity, "inputs")
    return replace(half, warnings=(thin, *half.warnings)) if moments.count < n else half


def _left(moments: Moments) -> _Half:
    if moments.outputs is None:
        raise ValueError("no gradients were seen")
    G, count = moments.outputs / moments.output_count, moments.output_count
    return _half(shrink(G, _shrinkage(_SHRINK_OUTPUTS, len(G), count)), "gradients")


def _shrinkage(least: float, dimensions: int, count: int) -> float:
    return max(least, dimensions / (dimensions + count))


def _half(C: Tensor, of: str) -> _Half:
    found = root(C)
    singular = f"the second moment of the {of} is singular: its root comes from its eigenvalues"
    return _Half(found, (singular,) if found.floored else ())
