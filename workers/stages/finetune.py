"""Recovery: every candidate, and the original as their control, train for the same steps on the same rows."""

from collections.abc import Callable
from pathlib import Path

from app.contract.report import TrainingPoint
from app.contract.spec import Finetune, Task
from app.contract.status import Stage
from workers.engine import finetune
from workers.engine.data import Examples
from workers.engine.formats import pt2
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import outputs_are
from workers.engine.graph.surgery import place
from workers.engine.losses import Goal, Loss, make_loss
from workers.stages import judge
from workers.stages.context import Context, load, save
from workers.stages.decompose import decomposed

CONTROL = "control"
_GOALS: dict[Task, Goal] = {
    Task.CLASSIFICATION: "classes",
    Task.LANGUAGE_MODELING: "classes",
    Task.REGRESSION: "values",
    Task.NONE: "outputs",
}


def run(context: Context) -> None:
    """Train and write what was trained; without train data or epochs there is nothing to do."""
    examples, asked = context.splits.fit, context.spec.finetune
    if examples is None or asked.epochs == 0:
        return
    schedule = _schedule(context, examples, asked)
    if not schedule.steps(len(examples)):
        context.notice(
            "not_finetuned", f"{len(examples)} rows to train on fill no batch of {schedule.batch_size}."
        )
        return
    names = [f"candidate-{index}" for index in range(_candidates(context))]
    if _metric_exists(context):
        names.append(CONTROL)
    for position, name in enumerate(names):
        student = _student(context, name)
        _train(context, student, examples, schedule, name, _advance(context, position, len(names)))


def trained(context: Context, name: str) -> Path | None:
    """The trained network of that name, where this stage made one."""
    path = context.folder(Stage.FINETUNE) / f"{name}.pt2"
    return path if path.exists() else None


def curve(context: Context, name: str) -> list[TrainingPoint]:
    """The training curve of that name; empty where nothing was trained."""
    path = context.folder(Stage.FINETUNE) / f"{name}.json"
    return load(path, list[TrainingPoint]) if path.exists() else []


def _candidates(context: Context) -> int:
    return len(decomposed(context))


def _metric_exists(context: Context) -> bool:
    test = context.splits.test
    return context.task is not Task.NONE and test is not None and test.target is not None


def _schedule(context: Context, examples: Examples, asked: Finetune) -> finetune.Schedule:
    batch = context.original.batch_size(min(asked.batch_size, len(examples)))
    return finetune.Schedule(asked.epochs, asked.learning_rate, batch, context.spec.seed)


def _student(context: Context, name: str) -> Network:
    if name == CONTROL:
        return context.original.copy()
    return pt2.read(context.folder(Stage.DECOMPOSE) / f"{name}.pt2")


def _train(
    context: Context,
    student: Network,
    examples: Examples,
    schedule: finetune.Schedule,
    name: str,
    advance: Callable[[int, int], None],
) -> None:
    teacher = context.original.copy()
    for network in (student, teacher):
        place(network.module, context.device)
    points = finetune.finetune(
        student, teacher, examples, schedule, _loss(context), judge=_judge(context), advance=advance
    )
    place(student.module, "cpu")
    pt2.write(student, context.folder(Stage.FINETUNE) / f"{name}.pt2")
    curve = [TrainingPoint(step=point.step, loss=point.loss, metric=point.metric) for point in points]
    save(context.folder(Stage.FINETUNE) / f"{name}.json", curve)


def _loss(context: Context) -> Loss:
    kind = outputs_are(context.original)
    return make_loss(_GOALS[context.task], kind, distill=context.spec.finetune.distill)


def _judge(context: Context) -> Callable[[Network], float | None]:
    """The metric on the rows kept for selection: never on the test rows."""
    examples = context.splits.selection

    def value(network: Network) -> float | None:
        if examples is None or not judge.judgeable(context, examples):
            return None
        predicted = judge.outputs(network, examples, context.device)
        found = judge.metric(context, predicted, examples)
        return found.value if found else None

    return value


def _advance(context: Context, position: int, of: int) -> Callable[[int, int], None]:
    def advance(done: int, steps: int) -> None:
        context.advance(Stage.FINETUNE, (position + done / max(1, steps)) / of)

    return advance
