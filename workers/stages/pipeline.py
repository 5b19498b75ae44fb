"""The way through a job: upload → inspect → plan → decompose → fine-tune → measure → package → report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from app.contract.status import Stage
from app.contract.summary import ModelSummary
from workers.engine.allocator import keep_pages
from workers.messages import Described, Message, Order, Succeeded
from workers.stages import decompose, finetune, inspect, measure, package, plan
from workers.stages.context import Context, save

_STAGES: dict[Stage, Callable[[Context], None]] = {
    Stage.INSPECT: inspect.run,
    Stage.PLAN: plan.run,
    Stage.DECOMPOSE: decompose.run,
    Stage.FINETUNE: finetune.run,
    Stage.MEASURE: measure.run,
    Stage.PACKAGE: package.run,
}


def run(order: Order, workspace: Path, emit: Callable[[Message], None]) -> None:
    """Do what `order` says in `workspace`, reporting through `emit`.

    Stages in `order.done` are skipped: their folders are there. Ends with `Succeeded`, or raises:
    `EngineError` is the user's to mend, anything else is ours.
    """
    upload = workspace / "inputs" / "upload"
    if order.kind == "inspect_model":
        found = inspect.model(upload, order.formats["upload"], partial(_describe, workspace, emit))
        save(workspace / "result.json", found)
    elif order.kind == "inspect_dataset":
        save(workspace / "result.json", inspect.dataset(upload, order.formats["upload"]))
    else:
        _compress(Context(order, workspace, emit))
    emit(Succeeded())


def _describe(workspace: Path, emit: Callable[[Message], None], found: ModelSummary) -> None:
    save(workspace / "result.json", found)
    emit(Described())


def _compress(context: Context) -> None:
    keep_pages()
    for stage, work in _STAGES.items():
        if stage in context.order.done:
            continue
        context.start(stage)
        work(context)
        context.finish(stage)
