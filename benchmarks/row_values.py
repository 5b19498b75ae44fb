"""How good outputs are on each row alone, so that two networks can be compared row by row: more is better."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.contract.spec import Task
from workers.engine.data import IGNORED_LABEL
from workers.engine.graph.outputs import OutputKind, log_probabilities, outputs_are
from workers.engine.padding import has_positions, real_positions
from workers.engine.rows import Rows
from workers.stages.context import Context

Arrays = Sequence[Rows | Tensor]

_LEAST = float(np.log(np.finfo(np.float32).tiny))  # nats; of outputs that are not numbers too


def row_values(
    context: Context, outputs: Tensor, original: Tensor, inputs: Arrays, target: Tensor | None
) -> NDArray[np.float64]:
    """By the job's task, rows without a label left out:

    - classification: whether the largest output is the label's, 0 or 1;
    - language-modeling: the mean log-likelihood of the row's tokens, in nats;
    - none: whether the largest output is the original's, 0 or 1.

    Raises `ValueError` for every other task, and where the targets are missing.
    """
    if context.task is Task.NONE:
        return _hits(outputs, original.argmax(-1))
    if target is None or context.task is Task.REGRESSION:
        raise ValueError(f"rows of a {context.task} without targets, or of values, are not compared")
    targets = target.long()
    if context.task is Task.CLASSIFICATION:
        return _hits(outputs, targets)
    positions = real_positions(context.original.inputs, inputs)
    counts = targets != IGNORED_LABEL
    if positions is not None and has_positions(outputs, positions):
        counts = counts & positions
    return likelihoods(outputs, targets, counts, outputs_are(context.original))


def closeness(context: Context, outputs: Tensor, original: Tensor, inputs: Arrays) -> NDArray[np.float64]:
    """Less the divergence from the original's outputs, in nats: the mean over each row's real positions of
    KL(original ‖ outputs), whose outputs are (rows, …, classes). It goes on telling networks apart where
    their metrics no longer differ."""
    kind = outputs_are(context.original)
    wanted, found = (log_probabilities(each.double(), kind) for each in (original, outputs))
    found = found.nan_to_num(_LEAST).clamp_min(_LEAST)
    divergence = (wanted.exp() * (wanted.clamp_min(_LEAST) - found)).sum(-1)
    positions = real_positions(context.original.inputs, inputs)
    if positions is None or not has_positions(outputs, positions):
        return -divergence.reshape(len(divergence), -1).mean(1).numpy()
    return -(divergence.where(positions, 0.0).sum(1) / positions.sum(1).clamp_min(1)).numpy()


def _hits(outputs: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """1 or 0; for outputs (rows, positions, classes) the mean over positions."""
    hits = (outputs.argmax(-1) == labels) & ~outputs.isnan().any(-1)
    rows = hits.double().reshape(len(hits), -1).mean(1)
    return rows[(labels != IGNORED_LABEL).reshape(len(labels), -1).any(1)].numpy()


def likelihoods(outputs: Tensor, targets: Tensor, counts: Tensor, kind: OutputKind) -> NDArray[np.float64]:
    """Means over what counts of every row: outputs (rows, …, classes), targets and counts (rows, …)."""
    scores = log_probabilities(outputs.double(), kind)
    found = scores.gather(-1, targets.where(counts, 0)[..., None]).squeeze(-1)
    found = found.nan_to_num(_LEAST, neginf=_LEAST).where(counts, 0.0).reshape(len(targets), -1)
    counted = counts.reshape(len(targets), -1).sum(1)
    return (found.sum(1) / counted)[counted > 0].numpy()
