"""How close a compressed network's outputs are to the original's; needs no labels."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.errors import EngineError
from workers.engine.measure.chunks import row_chunks
from workers.engine.padding import has_positions


@dataclass(frozen=True)
class Fidelity:
    """Closeness on `n` examples that count.

    `relative_error` is ‖candidate - original‖ / ‖original‖ over all outputs together (without the division
    where the original is all zero), `cosine` the mean over examples of the cosine similarity,
    `top1_agreement` the share of positions with the same largest class. Padding is left out of all of them.
    """

    relative_error: float
    cosine: float
    top1_agreement: float | None
    n: int


def compare(original: Tensor, candidate: Tensor, positions: Tensor | None = None) -> Fidelity:
    """Compare outputs of equal shape, rows first, summed in double precision.

    Of outputs (N, T, …) only the true ones of `positions` (N, T) count, where those are given. Top-1
    agreement is for outputs shaped (N, C) or (N, T, C) with at least two classes, else None.
    Raises `EngineError` (`metric_not_finite`) where either holds values that are not finite.
    """
    if original.shape != candidate.shape or not len(original):
        raise ValueError(f"cannot compare {tuple(original.shape)} with {tuple(candidate.shape)}")
    if positions is None or not has_positions(original, positions):
        positions = torch.ones(len(original), dtype=torch.bool)
    sums = torch.stack([_sums(*pieces) for pieces in row_chunks(original, candidate, positions)]).sum(0)
    error, norm, cosine, n, agreements, classified = sums.tolist()
    if not math.isfinite(error + norm):
        raise EngineError(
            "metric_not_finite",
            "The outputs hold values that are not finite numbers.",
            hint="Keep more of the model, or fine-tune with a lower learning rate.",
        )
    return Fidelity(
        relative_error=math.sqrt(error / norm) if norm else math.sqrt(error),
        cosine=cosine / n,
        top1_agreement=agreements / classified if classified else None,
        n=int(n),
    )


def _sums(original: Tensor, candidate: Tensor, real: Tensor) -> Tensor:
    """Squared error, squared norm, cosines, rows, top-1 agreements and classified positions, each summed over
    what is real: (n,) or (n, T)."""
    values = (torch.where(_like(real, rows), rows.double(), 0.0) for rows in (original, candidate))
    a, b = (rows.reshape(len(rows), -1) for rows in values)
    counts = real.reshape(len(real), -1).any(1)
    # rows of zeros have no direction: equal ones agree
    cosine = torch.where((a == b).all(1), 1.0, F.cosine_similarity(a, b, dim=1))[counts].sum()
    sums = [
        (a - b).square().sum(),
        a.square().sum(),
        cosine,
        counts.sum(),
        *_agreements(original, candidate, real),
    ]
    return torch.stack([value.double() for value in sums])


def _agreements(original: Tensor, candidate: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """At how many real positions the largest class is the same, and of how many."""
    if original.dim() not in (2, 3) or original.shape[-1] == 1:
        return torch.tensor(0), torch.tensor(0)
    same = original.argmax(-1) == candidate.argmax(-1)
    real = _like(real, same).expand_as(same)
    return (same & real).sum(), real.sum()


def _like(real: Tensor, values: Tensor) -> Tensor:
    """With axes of one for those that only `values` has."""
    return real.reshape(*real.shape, *(1,) * (values.dim() - real.dim()))
