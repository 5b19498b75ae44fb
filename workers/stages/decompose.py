"""Decomposing: the plan's forms go into a copy of the graph; then the closed-form repairs.

Where several weightings are to be tried, each makes a network, and the one that diverges least from the
original on rows held out of the calibration is kept.
"""

import math
from dataclasses import replace

from app.contract.plan import Plan
from app.contract.report import Trial
from app.contract.status import Stage
from workers.engine.formats import pt2
from workers.engine.measure.output_error import output_errors
from workers.stages.calibration import Judge, batches, calibration_rows, candidate_judge, held_out, weigh
from workers.stages.carry_out import Decomposed, carry_out
from workers.stages.context import Context, load, save
from workers.stages.plan import planned

_PLANS, _TRIALS = "plans.json", "trials-{}.json"


def run(context: Context) -> None:
    """One compressed network per candidate, and the plans with the errors of the factors that went in."""
    judge, done = candidate_judge(context), []
    alternatives = planned(context)
    for index, alternative in enumerate(alternatives):
        tried = [_judged(context, plan, judge) for plan in alternative.plans]
        best = min(tried, key=_divergence)
        pt2.write(best.network, context.folder(Stage.DECOMPOSE) / f"candidate-{index}.pt2")
        done.append(_with_output_errors(context, best))
        save(context.folder(Stage.DECOMPOSE) / _TRIALS.format(index), _trials(tried))
        context.advance(Stage.DECOMPOSE, (index + 1) / len(alternatives))
    save(context.folder(Stage.DECOMPOSE) / _PLANS, done)


def decomposed(context: Context) -> list[Plan]:
    """The plans as they were carried out: one per candidate."""
    return load(context.folder(Stage.DECOMPOSE) / _PLANS, list[Plan])


def trials(context: Context, index: int) -> list[Trial]:
    """The weightings that were tried for a candidate."""
    return load(context.folder(Stage.DECOMPOSE) / _TRIALS.format(index), list[Trial])


def _judged(context: Context, plan: Plan, judge: Judge) -> Decomposed:
    copy = context.original.copy()
    layers = context.layers(copy)
    weigh(context, layers, plan.weighting)
    made = carry_out(context, plan, copy, layers, calibration_rows(context))
    divergence = judge.divergence(made.network) if judge else None
    return replace(made, plan=made.plan.model_copy(update={"divergence": divergence}))


def _divergence(made: Decomposed) -> float:
    """Networks that could not be judged, or whose outputs are not numbers, come last."""
    found = made.plan.divergence
    return math.inf if found is None or math.isnan(found) else found


def _trials(tried: list[Decomposed]) -> list[Trial]:
    return [
        Trial(weighting=made.plan.weighting, divergence=made.plan.divergence)
        for made in tried
        if made.plan.divergence is not None and len(tried) > 1
    ]


def _with_output_errors(context: Context, made: Decomposed) -> Plan:
    """The plan with every layer's output error on rows held out of the calibration, where there are any."""
    rows = held_out(context)
    if rows is None:
        return made.plan
    errors = output_errors(
        context.original, context.layers(context.original), made.substitutes, batches(context, rows)
    )
    layers = [layer.model_copy(update={"output_error": errors.get(layer.name)}) for layer in made.plan.layers]
    return made.plan.model_copy(update={"layers": layers})
