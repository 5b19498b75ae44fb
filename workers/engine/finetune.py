"""Recovery: a compressed network learns from the original what the decomposition lost."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.engine import agreement
from workers.engine.checkpoint import Checkpoint, fill, tensors
from workers.engine.data import Batch, Examples
from workers.engine.decay import energy, products
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
    """How long and how fast: AdamW, a short linear warm-up, then a cosine down to zero. Without a
    `learning_rate` it is the one that the first batches' gradients agree on (`agreement.learning_rate`).

    Training ends after `epochs`, or earlier once `patience` epochs in a row brought nothing better. `decay`
    times the energy of the factorised weights is added to the loss, not to the curve.
    """

    epochs: int
    learning_rate: float | None
    batch_size: int
    seed: int
    patience: int | None = None
    decay: float = 0.0

    def steps(self, rows: int) -> int:
        """How many optimiser steps that makes of `rows` rows, where nothing ends it earlier."""
        return self.epochs * (rows // self.batch_size)


@dataclass(frozen=True)
class Point:
    """One point of the curve: mean loss since the last, and the metric at an epoch's end. At step 0 the loss
    is that of the first batch, before anything was learned from it."""

    step: int
    loss: float
    metric: float | None = None


@dataclass(frozen=True)
class Judged:
    """What rows that are not trained on say of a network: `metric` is for the curve, and `loss` chooses
    between epochs, the least one being the best, up to its standard `error`. None is not known."""

    metric: float | None = None
    loss: float | None = None
    error: float = 0.0


@dataclass(frozen=True)
class Trained:
    """The curve, after how many of the epochs that were trained the network was as it is kept, and the
    learning rate; None where nothing was trained."""

    curve: list[Point]
    kept: int
    epochs: int
    learning_rate: float | None = None


def finetune(
    student: Network,
    teacher: Network,
    examples: Examples,
    schedule: Schedule,
    loss: Loss,
    *,
    judge: Callable[[Network], Judged],
    advance: Callable[[int, int], None],
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train `student` in place on `examples`, and leave it as it was in the end, unless at the start or after
    an earlier epoch it was judged better by more than a standard error. The start was chosen on the rows
    that judge: between equals, what was learned is worth more. What is not judged is left as it was in the
    end.

    The order of the rows depends on the seed alone, so the control that trains beside a candidate sees the
    same batches. `judge` looks at the start and at the network after each epoch, `advance` hears of every
    step (done, of). What `checkpoint` holds of this training is taken up: on one thread of a CPU it ends with
    the weights, to the bit, that it would have come to undisturbed.

    Raises:
        EngineError: `training_diverged` when the loss stops being a number.
    """
    run = _Run(student, teacher, examples, schedule, loss, advance)
    state = checkpoint.load() if checkpoint else None
    if state is None:
        run.begin(judge(student))
    else:
        run.restore(state)
    while not run.over:
        set_training(student.module, True, batch_norm=schedule.batch_size > 1)
        run.epoch()
        set_training(student.module, False)
        run.end_epoch(judge(student))
        if checkpoint:
            checkpoint.save(run.state())
    return run.finish()


def labels_share(original: Network, examples: Examples, schedule: Schedule, loss: Loss) -> float:
    """How much of the loss should be the labels', the rest being the original's outputs: all of it where the
    gradients of `loss`, that of the labels alone, agree about where the original should go; nothing where it
    has learned what they say. All rows are one batch as large as they are: see `agreement.reliability`."""

    def value(inputs: tuple[Tensor, ...], target: Tensor | None) -> Tensor:
        outputs = original(*inputs)
        return loss(outputs, outputs, target, real_positions(original.inputs, inputs))

    found = _first_gradients(original, examples, schedule, value)
    share = agreement.reliability(found, len(examples) // schedule.batch_size)
    set_training(original.module, False)
    return share


@dataclass
class _Best:
    """The latest epoch that is as good as any, within a standard error, and its tensors; none while nothing
    is judged. `loss` is the least so far, of the epoch `since`."""

    epoch: int = 0
    loss: float = math.inf
    weights: dict[str, Tensor] | None = None
    since: int = 0

    def see(self, epoch: int, judged: Judged, network: Network) -> None:
        if judged.loss is None:
            return
        loss = math.inf if math.isnan(judged.loss) else judged.loss
        if self.weights is None or loss < self.loss + judged.error:
            self.epoch, self.weights = epoch, _copied(tensors(network))
        if loss < self.loss:
            self.loss, self.since = loss, epoch


class _Run:
    """The state of a training: optimiser, schedule, order of the rows, the curve and the best so far."""

    def __init__(
        self,
        student: Network,
        teacher: Network,
        examples: Examples,
        schedule: Schedule,
        loss: Loss,
        advance: Callable[[int, int], None],
    ) -> None:
        self._curve: list[Point] = []
        self._student, self._teacher = student, teacher
        self._examples, self._schedule = examples, schedule
        self._loss, self._advance = loss, advance
        self._steps = schedule.steps(len(examples))
        self._done = self._epochs = 0
        self._losses: list[float] = []
        self._at_start: float | None = None
        self._best = _Best()
        self._products = products(student) if schedule.decay else []
        self._rows = np.random.default_rng(schedule.seed)
        self._parameters = list(student.module.parameters())
        self._device = str(self._parameters[0].device)
        self._pace(schedule.learning_rate or agreement.FASTEST)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or as many as patience allows brought nothing."""
        patience, best = self._schedule.patience, self._best
        waited = best.weights is not None and patience is not None and self._epochs - best.since >= patience
        return waited or self._epochs >= self._schedule.epochs

    def _pace(self, learning_rate: float) -> None:
        self._optimizer = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.0)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _scale(step, self._steps)
        )

    def begin(self, judged: Judged) -> None:
        """Take the start for the best so far, and find the pace where none is given."""
        self._at_start = judged.metric
        self._best.see(0, judged, self._student)
        if self._schedule.learning_rate is None:
            found = _first_gradients(self._student, self._examples, self._schedule, self._value)
            self._pace(agreement.learning_rate(found))
        torch.manual_seed(self._schedule.seed)

    def epoch(self) -> None:
        """Every row once, in a new order."""
        order = self._rows.permutation(len(self._examples))
        for inputs, target in _batches(self._examples, self._schedule, order, self._device):
            self._step(inputs, target)
            self._advance(self._done, self._steps)
            if self._done % max(1, self._steps // _CURVE_POINTS) == 0:
                self._mark()
        self._epochs += 1

    def end_epoch(self, judged: Judged) -> None:
        """Put the judgement on the curve, and keep what is best."""
        self._mark(judged.metric)
        self._best.see(self._epochs, judged, self._student)

    def finish(self) -> Trained:
        """Leave the student as it was best."""
        kept = self._epochs if self._best.weights is None else self._best.epoch
        if kept < self._epochs and self._best.weights is not None:
            fill(self._student, self._best.weights)
        return Trained(self._curve, kept, self._epochs, float(self._scheduler.base_lrs[0]))

    def state(self) -> dict[str, Any]:
        """Everything that the epochs to come depend on."""
        best, now = self._best, tensors(self._student)
        return {
            # What is the same is stored once.
            "weights": now if best.weights is None or best.epoch < self._epochs else best.weights,
            "best": [best.epoch, best.loss, best.weights, best.since],
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "curve": [list(astuple(point)) for point in self._curve],
            "counts": [self._done, self._epochs],
            "rows": json.dumps(self._rows.bit_generator.state),
            "generators": _generators(self._device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        fill(self._student, state["weights"])
        self._done, self._epochs = state["counts"]
        self._best = _Best(*state["best"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self._curve = [Point(*values) for values in state["curve"]]
        self._rows.bit_generator.state = json.loads(state["rows"])
        _set_generators(self._device, state["generators"])

    def _mark(self, metric: float | None = None) -> None:
        """Put a point on the curve: the mean loss since the last, or again the last where none was made."""
        losses = self._losses or [point.loss for point in self._curve[-1:]]
        if losses:
            self._curve.append(Point(self._done, sum(losses) / len(losses), metric))
        self._losses = []

    def _value(self, inputs: tuple[Tensor, ...], target: Tensor | None) -> Tensor:
        with torch.no_grad():
            wanted = self._teacher(*inputs)
        positions = real_positions(self._student.inputs, inputs)
        value = self._loss(self._student(*inputs), wanted, target, positions)
        _demand_number(value)
        return value

    def _step(self, inputs: tuple[Tensor, ...], target: Tensor | None) -> None:
        value = self._value(inputs, target)
        if self._at_start is not None:
            self._curve.append(Point(0, float(value.detach()), self._at_start))
            self._at_start = None
        self._optimizer.zero_grad()
        self._decayed(value).backward()  # type: ignore[no-untyped-call]  # torch's own gap
        torch.nn.utils.clip_grad_norm_(self._parameters, _GRADIENT_NORM)
        self._optimizer.step()
        self._scheduler.step()
        self._losses.append(float(value.detach()))
        self._done += 1

    def _decayed(self, value: Tensor) -> Tensor:
        if not self._products:
            return value
        return value + self._schedule.decay * energy(self._student, self._products)


def _batches(
    examples: Examples, schedule: Schedule, order: NDArray[np.int64], device: str
) -> Iterable[Batch]:
    return examples.batches(schedule.batch_size, rows=order, device=device, whole=True)


def _first_gradients(
    network: Network, examples: Examples, schedule: Schedule, value: Callable[..., Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """Of the batches that training begins with."""
    torch.manual_seed(schedule.seed)
    order = np.random.default_rng(schedule.seed).permutation(len(examples))
    device = str(next(network.module.parameters()).device)
    return agreement.gradients(network, _batches(examples, schedule, order, device), value)


def _copied(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {path: value.detach().to("cpu", copy=True) for path, value in values.items()}


def _generators(device: str) -> list[Tensor]:
    """The states of what dropout draws from."""
    own = [torch.cuda.get_rng_state(device)] if device.startswith("cuda") else []
    return [torch.get_rng_state(), *own]


def _set_generators(device: str, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(states[1], device)


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
