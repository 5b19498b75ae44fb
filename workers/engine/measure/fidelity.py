"""How close a compressed network's outputs are to the original's; needs no labels."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.errors import EngineError
from workers.engine.measure.chunks import row_chunks


@dataclass(frozen=True)
class Fidelity:
    """Closeness on `n` examples.

    `relative_error` is ‖candidate - original‖ / ‖original‖ over all outputs together (without the division
    where the original is all zero), `cosine` the mean over examples of the cosine similarity,
    `top1_agreement` the share of positions with the same largest class.
    """

    relative_error: float
    cosine: float
    top1_agreement: float | None
    n: int


def compare(original: Tensor, candidate: Tensor) -> Fidelity:
    """Compare outputs of equal shape, rows first, summed in double precision.

    Top-1 agreement is for outputs shaped (N, C) or (N, T, C) with at least two classes, else None.
    Raises `EngineError` (`metric_not_finite`) where either holds values that are not finite.
    """
    if original.shape != candidate.shape or not len(original):
        raise ValueError(f"cannot compare {tuple(original.shape)} with {tuple(candidate.shape)}")
    sums = torch.stack([_sums(a, b) for a, b in row_chunks(original, candidate)]).sum(0)
    error, norm, cosine, agreements = sums.tolist()
    if not math.isfinite(error + norm):
        raise EngineError(
            "metric_not_finite",
            "The outputs hold values that are not finite numbers.",
            hint="Keep more of the model, or fine-tune with a lower learning rate.",
        )
    n = len(original)
    positions = original.numel() // original.shape[-1] if _has_classes(original) else None
    return Fidelity(
        relative_error=math.sqrt(error / norm) if norm else math.sqrt(error),
        cosine=cosine / n,
        top1_agreement=agreements / positions if positions else None,
        n=n,
    )


def _sums(original: Tensor, candidate: Tensor) -> Tensor:
    """Squared error, squared norm, cosines and top-1 agreements, each summed over the rows."""
    a, b = (rows.double().reshape(len(rows), -1) for rows in (original, candidate))
    # rows of zeros have no direction: equal ones agree
    cosine = torch.where((a == b).all(1), 1.0, F.cosine_similarity(a, b, dim=1))
    same = (original.argmax(-1) == candidate.argmax(-1)).sum() if _has_classes(original) else torch.tensor(0)
    return torch.stack([(a - b).square().sum(), a.square().sum(), cosine.sum(), same.double()])


def _has_classes(outputs: Tensor) -> bool:
    return outputs.dim() in (2, 3) and outputs.shape[-1] > 1
