"""Recovery: a compressed network learns from the original what the decomposition lost."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.graph.surgery import set_training
from workers.engine.losses import Loss
from workers.engine.padding import real_positions

_GRADIENT_NORM = 1.0
_WARM_UP = 0.05  # of all steps
_CURVE_POINTS = 50


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, a short linear warm-up, then a cosine down to zero."""

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int

    def steps(self, rows: int) -> int:
        """How many optimiser steps that makes of `rows` rows."""
        return self.epochs * (rows // self.batch_size)


@dataclass(frozen=True)
class Point:
    """One point of the curve: mean loss since the last, and the metric at an epoch's end."""

    step: int
    loss: float
    metric: float | None = None


def finetune(
    student: Network,
    teacher: Network,
    examples: Examples,
    schedule: Schedule,
    loss: Loss,
    *,
    judge: Callable[[Network], float | None],
    advance: Callable[[int, int], None],
) -> list[Point]:
    """Train `student` in place on `examples`; return the curve.

    The order of the rows depends on the seed alone, so the control that trains beside a candidate sees the
    same batches. `judge` gives the metric after each epoch, `advance` hears of every step (done, of).

    Raises:
        EngineError: `training_diverged` when the loss stops being a number.
    """
    torch.manual_seed(schedule.seed)
    run = _Run(student, teacher, examples, schedule, loss, advance)
    for _ in range(schedule.epochs):
        set_training(student.module, True, batch_norm=schedule.batch_size > 1)
        run.epoch()
        set_training(student.module, False)
        run.mark(judge(student))
    return run.curve


class _Run:
    """The state of a training: optimiser, schedule, order of the rows, and the curve so far."""

    def __init__(
        self,
        student: Network,
        teacher: Network,
        examples: Examples,
        schedule: Schedule,
        loss: Loss,
        advance: Callable[[int, int], None],
    ) -> None:
        self.curve: list[Point] = []
        self._student, self._teacher = student, teacher
        self._examples, self._batch_size = examples, schedule.batch_size
        self._loss, self._advance = loss, advance
        self._steps = schedule.steps(len(examples))
        self._done = 0
        self._losses: list[float] = []
        self._rows = np.random.default_rng(schedule.seed)
        parameters = list(student.module.parameters())
        self._device = str(parameters[0].device)
        self._optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=0.0)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _scale(step, self._steps)
        )

    def epoch(self) -> None:
        """Every row once, in a new order."""
        order = self._rows.permutation(len(self._examples))
        batches = self._examples.batches(self._batch_size, rows=order, device=self._device, whole=True)
        for inputs, target in batches:
            self._step(inputs, target)
            self._advance(self._done, self._steps)
            if self._done % max(1, self._steps // _CURVE_POINTS) == 0:
                self.mark()

    def mark(self, metric: float | None = None) -> None:
        """Put a point on the curve: the mean loss since the last, or again the last where none was made."""
        losses = self._losses or [point.loss for point in self.curve[-1:]]
        if losses:
            self.curve.append(Point(self._done, sum(losses) / len(losses), metric))
        self._losses = []

    def _step(self, inputs: tuple[Tensor, ...], target: Tensor | None) -> None:
        with torch.no_grad():
            wanted = self._teacher(*inputs)
        positions = real_positions(self._student.inputs, inputs)
        value = self._loss(self._student(*inputs), wanted, target, positions)
        _demand_number(value)
        self._optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch's own gap
        torch.nn.utils.clip_grad_norm_(self._student.module.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._scheduler.step()
        self._losses.append(float(value.detach()))
        self._done += 1


def _demand_number(value: Tensor) -> None:
    if not value.isfinite():
        raise EngineError(
            "training_diverged",
            "The loss stopped being a number while fine-tuning.",
            hint="Lower `finetune.learning_rate`.",
            field="finetune.learning_rate",
        )


def _scale(step: int, steps: int) -> float:
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
