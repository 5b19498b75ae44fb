"""How good a network is at its task, each number with its 95 % confidence interval."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from workers.engine.data import IGNORED_LABEL
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import OutputKind, log_probabilities
from workers.engine.measure.chunks import row_chunks
from workers.engine.padding import has_positions
from workers.engine.rows import Rows

Task = Literal["classification", "language-modeling", "regression"]

_Z95 = 1.959963984540054  # the normal distribution's 97.5th percentile


@dataclass(frozen=True)
class Metric:
    """A task metric on the `n` examples that count, with its 95 % confidence interval; `also` holds its
    siblings."""

    name: str
    value: float
    n: int
    ci95: tuple[float, float]
    also: dict[str, float] = field(default_factory=dict)


def predict(
    network: Network,
    arrays: Mapping[str, Rows],
    batch_size: int,
    device: torch.device | str = "cpu",
    form: Callable[..., object] | None = None,
) -> Tensor:
    """The network's first output for every row of `arrays`, in order, on the CPU.

    `arrays` has one array for each input, in the order of `network.inputs`, rows first; values are cast to
    the input's dtype and moved to `device`, where the network's weights lie already. A network exported for
    certain batches gets those, the last one filled up with repeated rows. Another `form` of the network is
    called in its place.
    Raises `EngineError` (`outputs_without_rows`) where the first output has not one row for each example.
    """
    with torch.inference_mode():
        outputs = [
            _rows((form or network)(*batch), network.rows_in(batch))[:rows].cpu()
            for rows, batch in _batches(network, arrays, batch_size, torch.device(device))
        ]
    return torch.cat(outputs)


def evaluate(
    outputs: Tensor,
    targets: Tensor,
    task: Task,
    kind: OutputKind = "logits",
    positions: Tensor | None = None,
) -> Metric:
    """The task's metric of `outputs` against `targets`.

    - classification, outputs (N, C), targets (N,): top-1, from six classes on also top-5; Wilson's interval.
    - language-modeling, outputs (N, T, V) with targets (N, T), or (N, V) with (N,): perplexity, the
      exponential of the mean negative log-likelihood of a token; interval from its spread over the N
      sequences. `kind` says whether outputs are logits, probabilities or log-probabilities.
    - regression, outputs and targets (N, ...) of as many values: root mean squared error, and R² where
      targets vary; interval from the spread of the squared error over the N examples.

    Labels of −100 do not count; nor do, in outputs (N, T, …), the false ones of `positions` (N, T).

    Raises `EngineError`: `task_mismatch` where the shapes do not fit the task, `label_out_of_range`,
    `labels_ignored` where no label counts, `too_few_examples`, and `metric_not_finite` where the outputs hold
    no usable numbers.
    """
    metric = {
        "classification": lambda: _classification(outputs, targets),
        "language-modeling": lambda: _language_modeling(outputs, targets, kind, positions),
        "regression": lambda: _regression(outputs, targets, positions),
    }[task]()
    if not all(map(math.isfinite, (metric.value, *metric.ci95, *metric.also.values()))):
        raise _not_finite(metric.name)
    return metric


def judgeable(targets: Tensor, task: Task, positions: Tensor | None = None) -> bool:
    """Whether so many of the targets count that `evaluate` has something to average, and an interval.

    Shapes as in `evaluate`: a label of −100 does not count, nor one at a false position.
    """
    if task == "regression":
        return len(targets) > 1
    counts = targets != IGNORED_LABEL
    if positions is not None and counts.shape == positions.shape:
        counts = counts & positions
    rows = int(counts.reshape(len(counts), -1).any(1).count_nonzero())
    return rows > (0 if task == "classification" else 1)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927); always inside [0, 1]."""
    p, z2 = successes / n, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _batches(
    network: Network, arrays: Mapping[str, Rows], batch_size: int, device: torch.device
) -> Iterator[tuple[int, list[Tensor]]]:
    """Batches in order, each with the number of its rows that are real."""
    step = network.batch_size(batch_size)
    length = len(next(iter(arrays.values())))
    for start in range(0, length, step):
        chosen = np.arange(start, min(start + step, length))
        rows = len(chosen)
        filled = np.append(chosen, np.repeat(chosen[-1:], network.batch_size(rows) - rows))
        pairs = zip(network.inputs, arrays.values(), strict=True)
        yield rows, [spec.of_rows(array[filled], device) for spec, array in pairs]


def _rows(outputs: object, n: int) -> Tensor:
    """The first tensor of what a network returned, which must have `n` rows: all of it is one row where its
    only row lost its axis."""
    first: Tensor = next(leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor))
    if n == 1 and first.shape[:1] != (1,):
        return first[None]
    if first.dim() == 0 or len(first) != n:
        raise EngineError(
            "outputs_without_rows",
            f"For a batch of {n} the model's first output has the shape {tuple(first.shape)}.",
            hint="Export the model so that the first axis of its first output is the batch.",
        )
    return first


def _classification(outputs: Tensor, targets: Tensor) -> Metric:
    _fits(outputs.dim() == 2 and targets.dim() == 1, "classification", outputs, targets)
    _fits(outputs.shape[-1] > 1, "classification", outputs, targets)
    counts = _counted(targets, outputs)
    scores, labels = outputs[counts].float(), targets[counts].long()
    if scores.isnan().any():
        raise _not_finite("top1")
    n, classes = scores.shape
    hits = (scores.topk(min(5, classes), dim=1).indices == labels[:, None]).cumsum(1).sum(0).tolist()
    also = {"top5": hits[4] / n} if classes >= 6 else {}
    return Metric("top1", hits[0] / n, n, wilson(hits[0], n), also)


def _language_modeling(
    outputs: Tensor, targets: Tensor, kind: OutputKind, positions: Tensor | None
) -> Metric:
    _fits(outputs.dim() in (2, 3) and outputs.shape[-1] > 1, "language-modeling", outputs, targets)
    counts = _counted(targets, outputs, positions)
    chunks = row_chunks(outputs, targets, counts)
    losses = torch.cat([_losses(scores, labels, counted, kind) for scores, labels, counted in chunks])
    tokens = counts.reshape(len(counts), -1).sum(1)
    mean, half = _mean_and_half_width(losses, tokens)
    # exp of an overflowing mean is infinite, which `evaluate` reports; math.exp would raise instead
    value, low, high = torch.tensor([mean, mean - half, mean + half], dtype=torch.float64).exp().tolist()
    return Metric("perplexity", value, int(tokens.count_nonzero()), (low, high))


def _regression(outputs: Tensor, targets: Tensor, positions: Tensor | None) -> Metric:
    _fits(len(outputs) == len(targets) and outputs.numel() == targets.numel(), "regression", outputs, targets)
    counts = _real_values(outputs, positions)
    truth = targets.double().reshape(counts.shape)
    squares = (outputs.double().reshape(counts.shape) - truth).square().where(counts, 0.0)
    mean, half = _mean_and_half_width(squares.sum(1), counts.sum(1))
    centre = truth.where(counts, 0.0).sum(0) / counts.sum(0).clamp_min(1)
    spread = (truth - centre).square().where(counts, 0.0).sum().item()
    also = {"r2": 1 - squares.sum().item() / spread} if spread > 0 else {}
    n = int(counts.any(1).count_nonzero())
    return Metric("rmse", _root(mean), n, (_root(mean - half), _root(mean + half)), also)


def _root(value: float) -> float:
    return 0.0 if value < 0 else math.sqrt(value)


def _real_values(outputs: Tensor, positions: Tensor | None) -> Tensor:
    """Which of every row's values count: (N, values)."""
    if positions is None or not has_positions(outputs, positions):
        return torch.ones_like(outputs, dtype=torch.bool).reshape(len(outputs), -1)
    values = positions.reshape(*positions.shape, *(1,) * (outputs.dim() - 2))
    return values.expand_as(outputs).reshape(len(outputs), -1)


def _losses(outputs: Tensor, targets: Tensor, counts: Tensor, kind: OutputKind) -> Tensor:
    """The negative log-likelihood of every sequence's tokens that count, summed, in nats: (N,)."""
    labels = targets.long().where(counts, 0)
    likelihoods = log_probabilities(outputs.double(), kind).gather(-1, labels[..., None]).squeeze(-1)
    likelihoods = likelihoods.masked_fill(outputs.isnan().any(-1), math.nan).where(counts, 0.0)
    return -likelihoods.reshape(len(targets), -1).sum(1)


def _mean_and_half_width(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    """The mean over all values, and the half width of its 95 % interval (normal approximation).

    Each of the N examples contributes `counts` values that make `sums`: the mean is the ratio of the totals,
    its spread that of the ratio estimator (Cochran 1977, chapter 6). Examples without a value are left out.
    """
    sums, counts = sums[counts > 0], counts[counts > 0].double()
    n = len(counts)
    if n < 2:
        raise EngineError(
            "too_few_examples", "A confidence interval needs at least two examples.", field="data"
        )
    mean = sums.sum() / counts.sum()
    deviation = ((sums - mean * counts).square().sum() / (n - 1)).sqrt() / counts.mean()
    return mean.item(), _Z95 * deviation.item() / math.sqrt(n)


def _counted(targets: Tensor, outputs: Tensor, positions: Tensor | None = None) -> Tensor:
    """Which labels count: boolean, in the shape of the targets."""
    task = "classification" if targets.dim() == 1 else "language-modeling"
    _fits(targets.shape == outputs.shape[:-1] and not targets.is_floating_point(), task, outputs, targets)
    counts = targets != IGNORED_LABEL
    if positions is not None and has_positions(outputs, positions):
        counts = counts & positions
    if not counts.any():
        raise EngineError(
            "labels_ignored",
            f"Every label is {IGNORED_LABEL} or padded: there is nothing to measure.",
            hint="Label some of the rows.",
            field="data",
        )
    _in_range(targets[counts], outputs.shape[-1])
    return counts


def _in_range(labels: Tensor, classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise EngineError(
            "label_out_of_range",
            f"The targets lie between {low} and {high}, but the model has {classes} classes.",
            hint=f"Use labels from 0 to {classes - 1}, or {IGNORED_LABEL} for what is to be ignored.",
            field="data",
        )


def _not_finite(metric: str) -> EngineError:
    return EngineError(
        "metric_not_finite",
        f"The {metric} is not a finite number: the model's outputs overflow or are not numbers.",
        hint="Fine-tune with a lower learning rate, or keep more of the model.",
    )


def _fits(condition: bool, task: str, outputs: Tensor, targets: Tensor) -> None:
    if not condition or not len(outputs):
        raise EngineError(
            "task_mismatch",
            f"Outputs of shape {tuple(outputs.shape)} with targets of shape {tuple(targets.shape)} "
            f"do not fit {task}.",
            hint="Choose the task that the model was trained for, and check the target array.",
            field="task",
        )
