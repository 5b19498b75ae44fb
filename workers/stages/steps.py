"""Truncate, correct, truncate again: one step of a candidate that gets to its budget in several.

A step decomposes the original, or what the last step trained with its factors merged into dense weights, by
all that a job of one step does: calibration, plans, weightings, repairs. What its network is compared with is
the original throughout.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.contract.base import Contract
from app.contract.plan import Plan
from app.contract.report import Trial
from app.contract.status import Stage
from workers.engine.checkpoint import fingerprint
from workers.engine.formats import pt2
from workers.engine.graph.network import Network
from workers.engine.layers.substitute import merged
from workers.stages import timing
from workers.stages.calibration import calibration_rows, candidate_judge, candidates
from workers.stages.context import Context, load, save
from workers.stages.decompose import best_of
from workers.stages.plan import planner_of, plans_anew


@dataclass(frozen=True)
class Step:
    """A step by the name of its files; `keep` is the share of the original's cost that it leaves, `epochs`
    its share of the job's."""

    name: str
    keep: float
    epochs: int


class _Made(Contract):
    """That a step's network is decomposed: of what (a fingerprint), the file, the plan as carried out."""

    about: str
    sha256: str
    plan: Plan
    trials: list[Trial]


def steps(context: Context, name: str, keep: float) -> Iterator[Step]:
    """Those of a candidate: to keep^(1/n), keep^(2/n) … keep. The last has the candidate's name."""
    count, epochs = context.spec.finetune.stages, context.spec.finetune.epochs
    for number in range(1, count + 1):
        step = name if number == count else f"{name}.step-{number}"
        share = epochs * number // count - epochs * (number - 1) // count
        yield Step(step, keep ** (number / count), share)


def decomposition(context: Context, step: Step, dense: Network) -> tuple[Plan, Network]:
    """A step's plan and network; what an earlier attempt made of the same dense network is taken."""
    about = _about(context, step, dense)
    made, path = _made(context, step.name), _path(context, step.name, "start.pt2")
    if made is None or made.about != about or not path.exists() or digest(path) != made.sha256:
        made = _decomposed(context, step, dense, path, about)
        save(_path(context, step.name, "plan"), made)
        context.saved()
    return made.plan, context.written(path)


def carried_out(context: Context, name: str) -> tuple[Plan, list[Trial]] | None:
    """The plan of a candidate's last step and the weightings tried for it; None where it took one step."""
    made = _made(context, name) if context.spec.finetune.stages > 1 else None
    return None if made is None else (made.plan, made.trials)


def whole(context: Context, plan: Plan, trained: Path) -> Network:
    """A network trained in the forms of a plan, as a dense one."""
    layers = {layer.name: layer for layer in context.layers(context.original)}
    forms = [(layers[each.name], each.method, tuple(each.rank)) for each in plan.layers if each.rank]
    return merged(context.original, forms, context.written(trained))


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _path(context: Context, name: str, suffix: str) -> Path:
    return context.folder(Stage.FINETUNE) / f"{name}.{suffix}"


def _made(context: Context, name: str) -> _Made | None:
    """What is said of a decomposed step; None where nothing whole is."""
    try:
        return load(_path(context, name, "plan"), _Made)
    except (OSError, ValueError):
        return None


def _about(context: Context, step: Step, dense: Network) -> str:
    rows = [each for each in (calibration_rows(context), context.splits.selection) if each is not None]
    return fingerprint((dense, context.original), rows, repr(step), context.spec.model_dump_json())


def _decomposed(context: Context, step: Step, dense: Network, path: Path, about: str) -> _Made:
    folders = context.workspace / "tmp" / step.name
    shutil.rmtree(folders, ignore_errors=True)
    try:
        inner = _inner(context, dense, folders)
        if inner is context:
            plans = [planner_of(context, by)(step.keep) for by in candidates(context)]
        else:
            plans = plans_anew(inner, step.keep)
        found, tried = best_of(inner, plans, candidate_judge(inner))
    finally:
        shutil.rmtree(folders, ignore_errors=True)
    pt2.write(found.network, path)
    return _Made(about=about, sha256=digest(path), plan=found.plan, trials=tried)


def _inner(context: Context, dense: Network, folders: Path) -> Context:
    """Where a dense network is decomposed: of the original everything is known already, but what its forms
    take is what those of another take."""
    if dense is context.original:
        return context
    inner = context.decomposing(dense, folders)
    timing.keep(inner, timing.timetable(context))
    return inner
