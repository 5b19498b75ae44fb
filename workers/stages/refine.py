"""Block refinement of a candidate on the calibration rows, undone where rows held out of it say so."""

from collections.abc import Callable

from torch import Tensor

from workers.engine.checkpoint import fill, tensors
from workers.engine.graph.network import Network
from workers.engine.refine_blocks import refine_blocks
from workers.stages.calibration import batches, calibration_rows, candidate_judge
from workers.stages.context import Context
from workers.stages.judge import on_cpu

_ROWS = 512
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
    given = [tuple(tensor.to(context.device) for tensor in batch) for batch in _batches(context)]
    refine_blocks(student, teacher, given, steps=_STEPS, learning_rate=_LEARNING_RATE, advance=advance)
    if not judge or judge.divergence(on_cpu(student, context.device)) < far:
        return True
    fill(student, before)
    return False


def _batches(context: Context) -> list[tuple[Tensor, ...]]:
    rows = calibration_rows(context)
    if rows is None:
        return []
    affordable = max(context.original.batch_size(1), _ACTIVATION_BYTES // context.row_bytes)
    return [inputs for inputs, _ in batches(context, rows.first(min(_ROWS, affordable)))]
