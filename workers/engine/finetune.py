"""Recovery: a compressed network learns from the original what the decomposition lost."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.graph.surgery import set_training
from workers.engine.losses import Loss

_GRADIENT_NORM = 1.0
_WARM_UP = 0.05  # of all steps


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
    generator = np.random.default_rng(schedule.seed)
    steps = schedule.steps(len(examples))
    optimizer = torch.optim.AdamW(student.module.parameters(), lr=schedule.learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _scale(step, steps))
    device = str(next(student.module.parameters()).device)
    curve: list[Point] = []
    done = 0
    for _ in range(schedule.epochs):
        losses: list[float] = []
        set_training(student.module, True)
        order = generator.permutation(len(examples))
        for inputs, target in examples.batches(schedule.batch_size, rows=order, device=device, whole=True):
            with torch.no_grad():
                wanted = teacher(*inputs)
            value = loss(student(*inputs), wanted, target)
            _step(value, student, optimizer)
            scheduler.step()
            losses.append(float(value.detach()))
            done += 1
            advance(done, steps)
            if done % max(1, steps // 50) == 0:
                curve.append(Point(done, _mean(losses)))
                losses.clear()
        set_training(student.module, False)
        curve.append(Point(done, _mean(losses) if losses else curve[-1].loss, judge(student)))
    return curve


def _step(value: torch.Tensor, student: Network, optimizer: torch.optim.Optimizer) -> None:
    if not value.isfinite():
        raise EngineError(
            "training_diverged",
            "The loss stopped being a number while fine-tuning.",
            hint="Lower `finetune.learning_rate`.",
            field="finetune.learning_rate",
        )
    optimizer.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]  # torch's own gap
    torch.nn.utils.clip_grad_norm_(student.module.parameters(), _GRADIENT_NORM)
    optimizer.step()


def _scale(step: int, steps: int) -> float:
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)
