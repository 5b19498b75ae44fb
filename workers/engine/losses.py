"""What fine-tuning minimises."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.engine.graph.outputs import OutputKind

Loss = Callable[[Any, Any, Tensor | None], Tensor]
Goal = Literal["classes", "values", "outputs"]

_TEMPERATURE = 2.0
_FLOOR = 1e-8


def make_loss(goal: Goal, kind: OutputKind, *, distill: bool) -> Loss:
    """A loss of (student output, teacher output, target).

    `classes`: the outputs rank classes along their last axis; distillation is the divergence from the teacher
    at temperature 2 (Hinton et al. 2015), averaged with the cross-entropy where there are targets. `values`:
    mean squared error to the teacher and to the target, relative to their own power. `outputs`: the same, to
    the teacher alone. Without targets every goal distils, whatever `distill` says: there is nothing else to
    learn from.
    """
    similar = _class_divergence(kind) if goal == "classes" else _relative_error
    correct = _cross_entropy(kind) if goal == "classes" else _relative_error

    def loss(student: Any, teacher: Any, target: Tensor | None) -> Tensor:
        if target is None or goal == "outputs":
            return similar(student, teacher)
        if not distill:
            return correct(student, target)
        return (similar(student, teacher) + correct(student, target)) / 2

    return loss


def _class_divergence(kind: OutputKind) -> Callable[[Any, Any], Tensor]:
    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        ours, theirs = (
            F.log_softmax(log_scores(output, kind) / _TEMPERATURE, dim=-1).flatten(0, -2)
            for output in (student, teacher)
        )
        return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * _TEMPERATURE**2

    return divergence


def _cross_entropy(kind: OutputKind) -> Callable[[Any, Tensor], Tensor]:
    def entropy(student: Tensor, target: Tensor) -> Tensor:
        scores = F.log_softmax(log_scores(student, kind), dim=-1)
        return F.nll_loss(scores.flatten(0, -2), target.flatten().long())

    return entropy


def log_scores(output: Tensor, kind: OutputKind) -> Tensor:
    """Outputs as logits: log-probabilities are logits already, probabilities become so by their logarithm."""
    return output.clamp_min(_FLOOR).log() if kind == "probabilities" else output


def _relative_error(student: Any, wanted: Any) -> Tensor:
    """Mean over outputs of ‖student − wanted‖² / ‖wanted‖²."""
    pairs = list(zip(_tensors(student), _tensors(wanted), strict=False))
    errors = [
        F.mse_loss(ours.reshape(theirs.shape).float(), theirs.float()) / _power(theirs)
        for ours, theirs in pairs
        if ours.is_floating_point()
    ]
    return torch.stack(errors).mean()


def _power(values: Tensor) -> Tensor:
    return values.float().square().mean().clamp_min(_FLOOR)


def _tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)
