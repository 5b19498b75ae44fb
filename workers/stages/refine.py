"""Block refinement of a candidate: learned on the calibration rows, judged on rows held out of them."""

from collections.abc import Callable

from torch import Tensor

from workers.engine.checkpoint import fill, tensors
from workers.engine.data import Batch, Examples
from workers.engine.graph.network import Network
from workers.engine.refine_blocks import refine_blocks
from workers.stages.calibration import batches, calibration_rows, candidate_judge
from workers.stages.context import Context
from workers.stages.judge import on_cpu

_ROWS, _JUDGING_ROWS = 512, 256
_ACTIVATION_BYTES = 1 << 32  # of all rows: what one block hands to the next, which is held, is a small part
_STEPS = 100  # for each block
_LEARNING_RATE = 1e-3


def can_refine(context: Context) -> bool:
    """Whether it was asked for, and there are rows for it."""
    return context.spec.finetune.refine and bool(_batches(context))


def refine(context: Context, student: Network, teacher: Network, advance: Callable[[int, int], None]) -> bool:
    """Refine `student` in place, on the device where both are; whether it came nearer to the original.
    `advance` hears of every block (done, of)."""
    judge = candidate_judge(context)
    before = {path: tensor.detach().clone() for path, tensor in tensors(student).items()}
    far = judge.divergence(on_cpu(student, context.device))
    learning, judging = (_placed(context, each) for each in (_batches(context), _judging(context)))
    refine_blocks(
        student, teacher, learning, judging, steps=_STEPS, learning_rate=_LEARNING_RATE, advance=advance
    )
    if not judge or judge.divergence(on_cpu(student, context.device)) < far:
        return True
    fill(student, before)
    return False


def _batches(context: Context) -> list[Batch]:
    return _affordable(context, calibration_rows(context), _ROWS)


def _judging(context: Context) -> list[Batch]:
    return _affordable(context, context.splits.selection, _JUDGING_ROWS)


def _affordable(context: Context, rows: Examples | None, most: int) -> list[Batch]:
    if rows is None or not len(rows):
        return []
    affordable = max(context.original.batch_size(1), _ACTIVATION_BYTES // context.row_bytes)
    return list(batches(context, rows.first(min(most, affordable))))


def _placed(context: Context, given: list[Batch]) -> list[tuple[Tensor, ...]]:
    return [tuple(tensor.to(context.device) for tensor in inputs) for inputs, _ in given]
