"""What fine-tuning minimises."""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.engine.data import IGNORED_LABEL
from workers.engine.graph.outputs import OutputKind
from workers.engine.padding import has_positions

Goal = Literal["classes", "values", "outputs"]

_TEMPERATURE = 2.0
_FLOOR = 1e-8


class Loss(Protocol):
    """A loss of student and teacher outputs, targets where there are any, and the real positions where some
    are padding: boolean, (batch, length). A batch in which nothing counts has the loss 0."""

    def __call__(
        self, student: Any, teacher: Any, target: Tensor | None, positions: Tensor | None = None
    ) -> Tensor:
        """The mean over what counts."""


def make_loss(goal: Goal, kind: OutputKind, *, labels: float = 0.0) -> Loss:
    """The loss that serves a goal, by the share of the `labels` in it, in 0 … 1; the rest is the teacher's.

    `classes`: the first output ranks classes along its last axis. What is learned from the teacher is the
    divergence at temperature 2 (Hinton et al. 2015), and from labels the cross-entropy; labels of −100 count
    in neither. `values`: mean squared errors to the teacher and to the target, relative to their own power.
    `outputs`: the same, to the teacher alone. Without targets there is nothing to learn from but the teacher,
    whatever their share.
    """
    select: Callable[..., tuple[Any, Any, Any]] = _counted if goal == "classes" else _real
    similar: Callable[[Any, Any], Tensor] = _class_divergence(kind) if goal == "classes" else _relative_error
    correct: Callable[[Any, Any], Tensor] = _cross_entropy(kind) if goal == "classes" else _relative_error

    def loss(student: Any, teacher: Any, target: Tensor | None, positions: Tensor | None = None) -> Tensor:
        target = None if goal == "outputs" else target
        ours, theirs, wanted = select(student, teacher, target, positions)
        if wanted is None or not labels:
            return similar(ours, theirs)
        if labels == 1.0:
            return correct(ours, wanted)
        return (1.0 - labels) * similar(ours, theirs) + labels * correct(ours, wanted)

    return loss


def _counted(
    student: Any, teacher: Any, target: Tensor | None, positions: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The first outputs (M, classes) and the labels (M,) at the M places that count."""
    scores = [_tensors(output)[0] for output in (student, teacher)]
    counts = torch.ones_like(scores[0][..., 0], dtype=torch.bool)
    if target is not None:
        target = target.reshape(counts.shape)
        counts = target != IGNORED_LABEL
    if positions is not None and has_positions(scores[0], positions):
        counts = counts & positions
    ours, theirs = (_places(each, counts) for each in scores[:2])
    return ours, theirs, None if target is None else target[counts]


def _places(scores: Tensor, counts: Tensor) -> Tensor:
    """The scores (M, classes) where `counts` is true. No copy where all count: vocabularies are large."""
    return scores.flatten(0, -2) if bool(counts.all()) else scores[counts]


def _real(
    student: Any, teacher: Any, target: Tensor | None, positions: Tensor | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """Every output, and the target like the first, at the positions that are real."""
    ours, theirs = _tensors(student), _tensors(teacher)
    wanted = [] if target is None else [target.reshape(ours[0].shape)]
    if positions is not None:
        ours, theirs, wanted = (
            [values[positions] if has_positions(values, positions) else values for values in outputs]
            for outputs in (ours, theirs, wanted)
        )
    return ours, theirs, wanted or None


def _class_divergence(kind: OutputKind) -> Callable[[Tensor, Tensor], Tensor]:
    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        ours, theirs = (
            F.log_softmax(log_scores(scores, kind) / _TEMPERATURE, dim=-1) for scores in (student, teacher)
        )
        return _mean(F.kl_div(ours, theirs, log_target=True, reduction="none").sum(-1)) * _TEMPERATURE**2

    return divergence


def _cross_entropy(kind: OutputKind) -> Callable[[Tensor, Tensor], Tensor]:
    def entropy(student: Tensor, target: Tensor) -> Tensor:
        scores = F.log_softmax(log_scores(student, kind), dim=-1)
        return _mean(F.nll_loss(scores, target.long(), reduction="none"))

    return entropy


def _mean(values: Tensor) -> Tensor:
    """0 where there is nothing to average: a batch of which every label is ignored."""
    return values.sum() / max(1, len(values))


def log_scores(output: Tensor, kind: OutputKind) -> Tensor:
    """Outputs as logits: log-probabilities are logits already, probabilities become so by their logarithm."""
    return output.clamp_min(_FLOOR).log() if kind == "probabilities" else output


def _relative_error(student: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean over the outputs that there is something to compare with, of ‖student − wanted‖² / ‖wanted‖²."""
    pairs = zip(student, wanted, strict=False)
    errors = [
        F.mse_loss(ours.float(), theirs.float()) / _power(theirs)
        for ours, theirs in pairs
        if ours.is_floating_point()
    ]
    return torch.stack(errors).mean()


def _power(values: Tensor) -> Tensor:
    return values.float().square().mean().clamp_min(_FLOOR)


def _tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)
