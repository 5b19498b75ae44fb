"""Deciding each layer's form: from the user's rules and budget to one plan per candidate."""

import math
from collections.abc import Iterator

from app.contract.base import Contract
from app.contract.plan import Plan
from app.contract.spec import BudgetRanks, CrossValidationRanks, Method, Weighting
from app.contract.status import Stage
from workers.engine.layers.base import Layer
from workers.engine.ranks.sensitivity import SIZES, Sensitivity, sensitivities
from workers.stages import cross_validation, timing
from workers.stages.calibration import Judge, candidates, gather, is_dear, sensitivity_judge, weigh
from workers.stages.context import Context, load, save
from workers.stages.decisions import decide, undecided
from workers.stages.timing import timetable

PLANS = "plans.json"
_SENSITIVITIES = "sensitivities-{}.json"
_DEPTHS = (2.0, -2.0)  # weightings of depth that are tried besides none


class Alternatives(Contract):
    """One candidate's plans, one for each weighting: decomposing decides between them."""

    plans: list[Plan]


class _Measured(Contract):
    """What was measured of one layer: (squared relative error, divergence) pairs."""

    layer: str
    points: list[tuple[float, float]]


class Planner:
    """Plans under one weighting for any budget, from the spectra of the dense network that is decomposed.

    Whoever makes one after the plan stage finds the sensitivities that it measured.
    """

    def __init__(self, context: Context, by: Weighting, fraction: float | None = None) -> None:
        self._context, self._by, self._fraction = context, by, fraction
        self._timetable = timetable(context)
        self._layers = context.layers(context.dense)
        weigh(context, self._layers, by)
        path = context.folder(Stage.PLAN) / _SENSITIVITIES.format(by)
        found = load(path, list[_Measured]) if path.exists() else []
        self._sensitivities = {each.layer: Sensitivity.of(each.points) for each in found}

    def __call__(self, keep: float, depth_weighting: float = 0.0) -> Plan:
        """The plan for one budget; raises `EngineError` where there is none."""
        context = self._context
        last = max(1, len(self._layers) - 1)
        for place, layer in enumerate(self._layers):
            if layer.name in self._sensitivities:
                weight = math.exp(depth_weighting * place / last)
                layer.sensitivity = self._sensitivities[layer.name].times(weight)
        plan = decide(
            context.dense, self._layers, context.spec, self._by, keep, self._fraction, self._timetable
        )
        return plan.model_copy(update={"depth_weighting": depth_weighting})


def planner_of(context: Context, by: Weighting, fraction: float | None = None) -> Planner:
    """The one for a weighting: what its layers' forms lose is computed once for all budgets."""
    return context.once((Planner, by, fraction), lambda: Planner(context, by, fraction))


def run(context: Context) -> None:
    """Plan every candidate."""
    ranks = context.spec.ranks
    folds = ranks.folds if isinstance(ranks, CrossValidationRanks) else 1
    gather(context, context.layers(context.original), parts=folds)
    fraction = cross_validation.choose(context, ranks) if isinstance(ranks, CrossValidationRanks) else None
    weightings = candidates(context)
    if weightings == [Weighting.NONE]:
        context.notice("not_calibrated", "No calibration data: the ranks are chosen by the weights alone.")
    by_weighting = []
    begun = 0.0 if fraction is None else cross_validation.SHARE
    if context.spec.target.of == "latency":
        layers = context.layers(context.original)
        weigh(context, layers, weightings[-1])
        timing.measure(context, layers)
    for done, planner in enumerate(_planners(context, fraction), 1):
        by_weighting.append([planner(keep) for keep in context.spec.target.keeps])
        context.advance(Stage.PLAN, begun + (1.0 - begun) * done / len(weightings))
    alternatives = [Alternatives(plans=list(plans)) for plans in zip(*by_weighting, strict=True)]
    save(context.folder(Stage.PLAN) / PLANS, alternatives)


def plans_anew(context: Context, keep: float) -> list[Plan]:
    """Plans under every weighting for a dense network about which nothing is known yet."""
    gather(context, context.layers(context.dense))
    return [planner(keep) for planner in _planners(context)]


def weighs_depth(context: Context) -> bool:
    """Whether plans that weight the layers' depth are tried: sums of losses are blind to what errors of early
    layers do to later ones. Not where carrying out a plan is dear."""
    spec = context.spec
    if not isinstance(spec.ranks, BudgetRanks) or spec.target.max_drop is not None:
        return False
    return not is_dear(context) and bool(sensitivity_judge(context))


def depth_weighted(context: Context, plan: Plan) -> Iterator[Plan]:
    """The plans for the same budget and weighting that weight depth, as far as they are others."""
    planner, found = planner_of(context, plan.weighting), [plan]
    for depth_weighting in _DEPTHS:
        other = planner(plan.keep, depth_weighting)
        if all(_forms(other) != _forms(each) for each in found):
            found.append(other)
            yield other


def _forms(plan: Plan) -> list[tuple[Method, list[int] | None]]:
    return [(layer.method, layer.rank) for layer in plan.layers]


def _planners(context: Context, fraction: float | None = None) -> Iterator[Planner]:
    """One for each weighting to be tried, once it is measured what its errors do."""
    judge = sensitivity_judge(context)
    for by in candidates(context):
        if isinstance(context.spec.ranks, BudgetRanks) and judge:
            measure_sensitivities(context, by, judge)
        yield planner_of(context, by, fraction)


def planned(context: Context) -> list[Alternatives]:
    """What `run` decided: one entry per candidate; none where the budget is still to be searched for."""
    return load(context.folder(Stage.PLAN) / PLANS, list[Alternatives])


def measure_sensitivities(context: Context, by: Weighting, judge: Judge) -> None:
    """Keep, for whoever plans under this weighting, what each layer's errors make the outputs diverge by."""

    def fresh() -> list[Layer]:
        layers = context.layers(context.dense.copy())
        weigh(context, layers, by)
        return undecided(layers, context.spec)

    sizes = SIZES[1::2] if is_dear(context) else SIZES
    found = sensitivities(context.dense, fresh, judge.divergence, remembered=judge.remembered, sizes=sizes)
    measured = [_Measured(layer=name, points=list(each.points)) for name, each in found.items()]
    save(context.folder(Stage.PLAN) / _SENSITIVITIES.format(by), measured)
