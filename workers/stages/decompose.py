"""Decomposing: the plan's forms go into a copy of the graph; then the closed-form repairs.

Where several weightings are to be tried, of the data or of the layers' depth, each makes a network, and the
one that diverges least from the original on rows held out of the calibration is kept. Where the loss is
bounded, the budget is searched for.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from app.contract.plan import Plan
from app.contract.report import Trial
from app.contract.status import Stage
from workers.engine.errors import EngineError
from workers.engine.formats import pt2
from workers.engine.graph.network import Network
from workers.engine.measure.output_error import output_errors
from workers.stages import search
from workers.stages.calibration import (
    Judge,
    batches,
    calibration_rows,
    candidate_judge,
    candidates,
    held_out,
    weigh,
)
from workers.stages.carry_out import Decomposed, carry_out
from workers.stages.context import Context, load, save
from workers.stages.plan import depth_weighted, planned, planner_of, weighs_depth

_PLANS, _TRIALS = "plans.json", "trials-{}.json"
_TYPICAL = 0.5  # the budget at which weightings are compared before one is searched for


def run(context: Context) -> None:
    """One compressed network per candidate, and the plans with the errors of the factors that went in."""
    judge, done = candidate_judge(context), []
    alternatives = [alternative.plans for alternative in planned(context)] or [_typical(context)]
    for index, plans in enumerate(alternatives):
        made, tried = best_of(context, plans, judge)
        pt2.write(made.network, context.folder(Stage.DECOMPOSE) / f"candidate-{index}.pt2")
        done.append(made.plan)
        save(context.folder(Stage.DECOMPOSE) / _TRIALS.format(index), tried)
        context.advance(Stage.DECOMPOSE, (index + 1) / len(alternatives))
    save(context.folder(Stage.DECOMPOSE) / _PLANS, done)


def best_of(context: Context, plans: Sequence[Plan], judge: Judge) -> tuple[Decomposed, list[Trial]]:
    """The plan whose network is nearest to the original, carried out, or the cheapest one under the same
    weighting that the job bears; and what was found of each."""
    by_depth = weighs_depth(context)
    several = len(plans) > 1 or by_depth
    tried = [_judged(context, plan, judge, polished=not several) for plan in plans]
    nearest = min(tried, key=_divergence)
    for plan in depth_weighted(context, nearest.plan) if by_depth else ():
        tried.append(_judged(context, plan, judge, polished=False))
        if _divergence(tried[-1]) < _divergence(nearest):
            nearest = tried[-1]
            break  # nor will the opposite help then
    best = search.bounded(context, nearest.plan, nearest.network, partial(_rough, context))
    made = _judged(context, best, judge) if several or best is not nearest.plan else nearest
    return replace(made, plan=_with_output_errors(context, made)), _trials(tried)


def decomposed(context: Context) -> list[Plan]:
    """The plans as they were carried out: one per candidate."""
    return load(context.folder(Stage.DECOMPOSE) / _PLANS, list[Plan])


def trials(context: Context, index: int) -> list[Trial]:
    """The weightings that were tried for a candidate."""
    return load(context.folder(Stage.DECOMPOSE) / _TRIALS.format(index), list[Trial])


def _typical(context: Context) -> list[Plan]:
    """Plans to compare weightings by, where the budget is unknown."""
    planners = [planner_of(context, by) for by in candidates(context)]
    try:
        return [planner(_TYPICAL) for planner in planners]
    except EngineError:  # out of reach: what is searched for is dearer
        return [planner(1.0) for planner in planners]


def _judged(context: Context, plan: Plan, judge: Judge, *, polished: bool = True) -> Decomposed:
    made = _made(context, plan, polished=polished)
    divergence = judge.divergence(made.network) if judge else None
    return replace(made, plan=made.plan.model_copy(update={"divergence": divergence}))


def _rough(context: Context, plan: Plan) -> Network:
    return _made(context, plan, polished=False).network


def _made(context: Context, plan: Plan, *, polished: bool) -> Decomposed:
    copy = context.dense.copy()
    layers = context.layers(copy)
    weigh(context, layers, plan.weighting)
    for layer in layers:
        layer.polished = polished
    return carry_out(context, plan, copy, layers, calibration_rows(context))


def _divergence(made: Decomposed) -> float:
    """Networks that could not be judged, or whose outputs are not numbers, come last."""
    found = made.plan.divergence
    return math.inf if found is None or math.isnan(found) else found


def _trials(tried: list[Decomposed]) -> list[Trial]:
    return [
        Trial(
            weighting=made.plan.weighting,
            depth_weighting=made.plan.depth_weighting,
            divergence=made.plan.divergence,
        )
        for made in tried
        if made.plan.divergence is not None and len(tried) > 1
    ]


def _with_output_errors(context: Context, made: Decomposed) -> Plan:
    """The plan with every layer's output error on rows held out of the calibration, where there are any."""
    rows = held_out(context)
    if rows is None:
        return made.plan
    errors = output_errors(
        context.dense, context.layers(context.dense), made.substitutes, batches(context, rows)
    )
    layers = [layer.model_copy(update={"output_error": errors.get(layer.name)}) for layer in made.plan.layers]
    return made.plan.model_copy(update={"layers": layers})
