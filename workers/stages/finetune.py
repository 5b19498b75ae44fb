"""Recovery: every candidate, and the original as their control, train by the same rules on the same rows.

A lost attempt is gone on with: networks that it finished stay, the one that it was at goes on after its last
epoch. What does not fit this job, or was damaged, is made anew.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from app.contract.base import Contract
from app.contract.plan import Plan
from app.contract.report import LOWER_IS_BETTER, TrainingPoint, Trial
from app.contract.spec import Method, Task
from app.contract.status import Stage
from workers.engine import finetune
from workers.engine.checkpoint import Checkpoint, fill, fingerprint, tensors
from workers.engine.finetune import Judged
from workers.engine.formats import pt2
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import outputs_are
from workers.engine.graph.surgery import place
from workers.engine.losses import Goal, Loss, make_loss
from workers.stages import judge, steps
from workers.stages.calibration import candidate_judge
from workers.stages.context import Context, load, save
from workers.stages.decompose import decomposed, trials
from workers.stages.refine import can_refine, refine

_CI95 = 2 * 1.96  # standard errors that a 95 % interval is wide
CONTROL = "control"
_REFINEMENT = 0.3  # of the time that a network takes
_GOALS: dict[Task, Goal] = {
    Task.CLASSIFICATION: "classes",
    Task.LANGUAGE_MODELING: "classes",
    Task.REGRESSION: "values",
    Task.NONE: "outputs",
}


class _Done(Contract):
    """That a network is trained: what the training was about (a fingerprint), the file it made, after how
    many of its epochs the weights were as they are kept, whether a refinement, if any, did it good, and the
    learning rate."""

    about: str
    sha256: str
    kept: int
    epochs: int
    refined: bool
    learning_rate: float | None = None
    labels_share: float | None = None


def run(context: Context) -> None:
    """Train and write what was trained; without rows to do it on there is nothing to do. Say which layers
    stay dense and why."""
    schedule = _schedule(context)
    names = list(_names(context, schedule))
    _keep(context, names)
    for position, name in enumerate(names):
        part = _Part(context, schedule, position / len(names), (position + 1) / len(names))
        if schedule and name == CONTROL:
            part = replace(part, schedule=replace(schedule, learning_rate=_fastest(context, names)))
        if schedule and context.spec.finetune.stages > 1 and name != CONTROL:
            _train_in_steps(part, schedule, name)
        else:
            _tell(context, name, _trained(part, name, _student(context, name)))
    _tell_dense(context, carried_out(context)[0][0])


def carried_out(context: Context) -> list[tuple[Plan, list[Trial]]]:
    """The plan of every candidate as it is in the end, and the weightings that were tried for it."""
    once = [(plan, trials(context, index)) for index, plan in enumerate(decomposed(context))]
    return [steps.carried_out(context, _name(index)) or plan for index, plan in enumerate(once)]


def trained(context: Context, name: str) -> Path | None:
    """The trained network of that name, where this stage made one."""
    path = _path(context, name, "pt2")
    return path if path.exists() else None


class Pace(NamedTuple):
    """The learning rate of a training, and how much of its loss was the labels'; None where nothing was
    trained, or there are no labels."""

    learning_rate: float | None = None
    labels_share: float | None = None


def pace(context: Context, name: str) -> Pace:
    """How the network of that name was trained, in its last stage."""
    path = _path(context, name, "done")
    done = load(path, _Done) if path.exists() else None
    return Pace(done.learning_rate, done.labels_share) if done else Pace()


def _fastest(context: Context, names: Collection[str]) -> float | None:
    """The control's rate: the fastest of the candidates'. An original that has learned all it can has none of
    its own, one that has not is due what they are given."""
    rates = [pace(context, name).learning_rate for name in names if name != CONTROL]
    return max((rate for rate in rates if rate), default=None)


def curve(context: Context, name: str) -> list[TrainingPoint]:
    """The training curve of that name; empty where nothing was trained."""
    points: list[TrainingPoint] = []
    for step in steps.steps(context, name, 1.0):
        path, before = _path(context, step.name, "json"), points[-1].step if points else 0
        found = load(path, list[TrainingPoint]) if path.exists() else []
        points += [point.model_copy(update={"step": before + point.step}) for point in found]
    return points


def _path(context: Context, name: str, suffix: str) -> Path:
    return context.folder(Stage.FINETUNE) / f"{name}.{suffix}"


@dataclass(frozen=True)
class _Part:
    """What is done to one network, and which part of the stage that is."""

    context: Context
    schedule: finetune.Schedule | None
    start: float
    end: float

    @property
    def middle(self) -> float:
        """Where the refinement ends and the training begins."""
        return self.start + _REFINEMENT * (self.end - self.start) if self.schedule else self.end


def _names(context: Context, schedule: finetune.Schedule | None) -> Iterator[str]:
    if schedule or can_refine(context):
        yield from map(_name, range(len(decomposed(context))))
    if schedule and _metric_exists(context):
        yield CONTROL


def _name(index: int) -> str:
    return f"candidate-{index}"


def _keep(context: Context, names: Collection[str]) -> None:
    """Delete what another job left of other networks."""
    for path in context.folder(Stage.FINETUNE).iterdir():
        if path.is_file() and path.name.partition(".")[0] not in {*names, "notices"}:
            path.unlink()


def _metric_exists(context: Context) -> bool:
    test = context.splits.test
    return context.task is not Task.NONE and test is not None and test.target is not None


def _schedule(context: Context) -> finetune.Schedule | None:
    examples, asked = context.splits.fit, context.spec.finetune
    if examples is None or asked.epochs == 0:
        return None
    batch = context.original.batch_size(min(asked.batch_size, len(examples)))
    schedule = finetune.Schedule(
        asked.epochs, asked.learning_rate, batch, context.spec.seed, asked.patience, asked.decay
    )
    if schedule.steps(len(examples)):
        return schedule
    context.notice("not_finetuned", f"{len(examples)} rows to train on fill no batch of {batch}.")
    return None


def _student(context: Context, name: str) -> Network:
    if name == CONTROL:
        return context.original.copy()
    return context.written(context.folder(Stage.DECOMPOSE) / f"{name}.pt2")


def _train_in_steps(part: _Part, schedule: finetune.Schedule, name: str) -> None:
    """Truncate and train by turns: every step begins with what the last one trained, made dense."""
    context, dense = part.context, part.context.original
    [keep] = [plan.keep for index, plan in enumerate(decomposed(context)) if _name(index) == name]
    taken = list(steps.steps(context, name, keep))
    length = (part.end - part.start) / len(taken)
    for number, step in enumerate(taken):
        plan, student = steps.decomposition(context, step, dense)
        start = part.start + number * length
        own = _Part(context, replace(schedule, epochs=step.epochs), start, start + length)
        _tell(context, step.name, _trained(own, step.name, student))
        dense = steps.whole(context, plan, _path(context, step.name, "pt2"))


def _trained(part: _Part, name: str, student: Network) -> _Done:
    """Refine and train a network and write it by that name, unless that is done."""
    context, teacher = part.context, part.context.original.copy()
    about = _about(part, student)
    done = _done(context, name)
    if done is not None and done.about == about:
        return done
    for network in (student, teacher):
        place(network.module, context.device)
    kept = [
        Checkpoint(_path(context, name, suffix), about, context.saved) for suffix in ("refined", "checkpoint")
    ]
    refined = name == CONTROL or _refined(part, student, teacher, kept[0])
    share = _labels_share(part)
    found = _finetuned(part, student, teacher, kept[1], share or 0.0)
    place(student.module, "cpu")
    written = _write(context, name, student, found)
    done = _Done(
        about=about,
        sha256=written,
        kept=found.kept,
        epochs=found.epochs,
        refined=refined,
        learning_rate=found.learning_rate,
        labels_share=share,
    )
    save(_path(context, name, "done"), done)
    for checkpoint in kept:
        checkpoint.remove()
    context.saved()
    return done


def _refined(part: _Part, student: Network, teacher: Network, checkpoint: Checkpoint) -> bool:
    """Refine the network where that was asked for; False where that came to nothing."""
    if not can_refine(part.context):
        return True
    state = checkpoint.load()
    if state is None:
        better = refine(part.context, student, teacher, _advance(part.context, part.start, part.middle))
        checkpoint.save({"better": better, "weights": tensors(student)})
        return better
    fill(student, state["weights"])
    return bool(state["better"])


def _finetuned(
    part: _Part, student: Network, teacher: Network, checkpoint: Checkpoint, labels: float
) -> finetune.Trained:
    context, examples = part.context, part.context.splits.fit
    if part.schedule is None or examples is None:
        return finetune.Trained([], 0, 0)
    return finetune.finetune(
        student,
        teacher,
        examples,
        part.schedule,
        _loss(context, labels),
        judge=_judge(context),
        advance=_advance(context, part.middle, part.end),
        checkpoint=checkpoint,
    )


def _about(part: _Part, student: Network) -> str:
    """The fingerprint of what is done to a network."""
    context = part.context
    rows = [each for each in (context.splits.fit, context.splits.calibration) if each is not None]
    said = (repr(part.schedule), context.spec.finetune.model_dump_json(), context.task.value)
    return fingerprint((student, context.original), rows, *said)


def _write(context: Context, name: str, student: Network, found: finetune.Trained) -> str:
    """Write network and curve; the network's digest."""
    path = _path(context, name, "pt2")
    pt2.write(student, path)
    points = [TrainingPoint(step=point.step, loss=point.loss, metric=point.metric) for point in found.curve]
    save(_path(context, name, "json"), points)
    return steps.digest(path)


def _done(context: Context, name: str) -> _Done | None:
    """What is said of a finished network; None where there is none, or its file is not what was written."""
    path = _path(context, name, "done")
    try:
        done = load(path, _Done)
        curve(context, name)
        return done if done.sha256 == steps.digest(_path(context, name, "pt2")) else None
    except (OSError, ValueError):
        return None


def _tell(context: Context, name: str, done: _Done) -> None:
    if not done.refined:
        context.notice(
            "not_refined",
            f"Refining {name} block by block brought it no nearer to the original on the rows kept for "
            "selection, and was undone.",
        )
    if done.kept < done.epochs:
        when = f"after epoch {done.kept}" if done.kept else "before the first"
        context.notice(
            "kept_earlier_epoch",
            f"Of {done.epochs} epochs of {name} the last was worse on the rows kept for selection than the "
            f"weights {when}, which were kept.",
        )


def _tell_dense(context: Context, plan: Plan) -> None:
    for layer in plan.layers:
        if layer.method is Method.KEEP and layer.reason:
            context.notice("kept_dense", f"{layer.name} stays dense: {layer.reason}.", layer.name)


def _loss(context: Context, labels: float) -> Loss:
    return make_loss(_GOALS[context.task], outputs_are(context.original), labels=labels)


def _labels_share(part: _Part) -> float | None:
    """How much of the loss is the labels', in every training alike: it is asked of the original. None where
    there are no labels to learn from."""
    context, schedule, examples = part.context, part.schedule, part.context.splits.fit
    if schedule is None or examples is None or examples.target is None or context.task is Task.NONE:
        return None
    if not context.spec.finetune.distill:
        return 1.0

    def share() -> float:
        original = context.original.copy()
        place(original.module, context.device)
        return finetune.labels_share(original, examples, schedule, _loss(context, 1.0))

    return context.once(_labels_share, share)


def _judge(context: Context) -> Callable[[Network], Judged]:
    """The metric on the rows kept for selection, never on the test rows; where there is none, how far the
    outputs on those rows are from the original's."""
    examples = context.splits.selection

    def value(network: Network) -> Judged:
        if examples is None or not judge.judgeable(context, examples):
            return Judged()
        predicted = judge.outputs(network, examples, context.device)
        found = judge.metric(context, predicted, examples)
        if found is None:
            return Judged()
        low, high = found.ci95
        loss = found.value if found.name in LOWER_IS_BETTER else -found.value
        return Judged(found.value, loss, (high - low) / _CI95)

    distance = lru_cache(maxsize=1)(lambda: candidate_judge(context))

    def judged(network: Network) -> Judged:
        found = value(network)
        if found.loss is not None or not distance():
            return found
        return Judged(loss=distance().divergence(judge.on_cpu(network, context.device)))

    return judged


def _advance(context: Context, start: float, end: float) -> Callable[[int, int], None]:
    """Takes progress within a part of the stage."""

    def advance(done: int, of: int) -> None:
        context.advance(Stage.FINETUNE, start + (end - start) * done / max(1, of))

    return advance
