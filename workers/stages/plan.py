"""Deciding each layer's form: from the user's rules and budget to one plan per candidate."""

from app.contract.base import Contract
from app.contract.plan import Plan
from app.contract.spec import BudgetRanks, CrossValidationRanks, Method, Weighting
from app.contract.status import Stage
from workers.engine.layers.base import Layer
from workers.engine.ranks.sensitivity import Sensitivity, sensitivities
from workers.stages import cross_validation
from workers.stages.calibration import Judge, candidates, gather, sensitivity_judge, weigh
from workers.stages.context import Context, load, save
from workers.stages.decisions import decide, undecided

PLANS = "plans.json"


class Alternatives(Contract):
    """One candidate's plans, one for each weighting: decomposing decides between them."""

    plans: list[Plan]


def run(context: Context) -> None:
    """Plan every candidate; say which layers stay dense and why."""
    ranks = context.spec.ranks
    folds = ranks.folds if isinstance(ranks, CrossValidationRanks) else 1
    gather(context, context.layers(context.original), parts=folds)
    fraction = cross_validation.choose(context, ranks) if isinstance(ranks, CrossValidationRanks) else None
    weightings = candidates(context)
    if weightings == [Weighting.NONE]:
        context.notice("not_calibrated", "No calibration data: the ranks are chosen by the weights alone.")
    judge = sensitivity_judge(context)
    by_weighting = []
    begun = 0.0 if fraction is None else cross_validation.SHARE
    for done, by in enumerate(weightings, 1):
        by_weighting.append(_plans(context, by, judge, fraction))
        context.advance(Stage.PLAN, begun + (1.0 - begun) * done / len(weightings))
    alternatives = [Alternatives(plans=list(plans)) for plans in zip(*by_weighting, strict=True)]
    _report_dense(context, alternatives[0].plans[0])
    save(context.folder(Stage.PLAN) / PLANS, alternatives)


def planned(context: Context) -> list[Alternatives]:
    """What `run` decided: one entry per candidate."""
    return load(context.folder(Stage.PLAN) / PLANS, list[Alternatives])


def _plans(context: Context, by: Weighting, judge: Judge, fraction: float | None) -> list[Plan]:
    """One plan per `target.keep` under one weighting, from one decomposition's spectra."""
    layers = context.layers(context.original)
    weigh(context, layers, by)
    if isinstance(context.spec.ranks, BudgetRanks) and judge:
        measured = _sensitivities(context, by, judge)
        for layer in layers:
            layer.sensitivity = measured.get(layer.name)
    return decide(context.original, layers, context.spec, by, fraction)


def _sensitivities(context: Context, by: Weighting, judge: Judge) -> dict[str, Sensitivity]:
    def fresh() -> list[Layer]:
        layers = context.layers(context.original.copy())
        weigh(context, layers, by)
        return undecided(layers, context.spec)

    return sensitivities(context.original, fresh, judge.divergence, remembered=judge.remembered)


def _report_dense(context: Context, plan: Plan) -> None:
    for layer in plan.layers:
        if layer.method is Method.KEEP and layer.reason:
            context.notice("kept_dense", f"{layer.name} stays dense: {layer.reason}.", layer.name)
