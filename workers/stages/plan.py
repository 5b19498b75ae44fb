"""Deciding each layer's form: from the user's rules and budget to one plan per candidate."""

from collections.abc import Iterator

from app.contract.base import Contract
from app.contract.plan import Plan
from app.contract.spec import BudgetRanks, CrossValidationRanks, Weighting
from app.contract.status import Stage
from workers.engine.layers.base import Layer
from workers.engine.ranks.sensitivity import SIZES, Sensitivity, sensitivities
from workers.stages import cross_validation, timing
from workers.stages.calibration import Judge, candidates, gather, sensitivity_judge, weigh
from workers.stages.context import Context, load, save
from workers.stages.decisions import decide, undecided
from workers.stages.timing import timetable

PLANS = "plans.json"
_SENSITIVITIES = "sensitivities-{}.json"


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
        points = {each.layer: each.points for each in found}
        for layer in self._layers:
            if layer.name in points:
                layer.sensitivity = Sensitivity.of(points[layer.name])

    def __call__(self, keep: float) -> Plan:
        """The plan for one budget; raises `EngineError` where there is none."""
        context = self._context
        return decide(
            context.dense, self._layers, context.spec, self._by, keep, self._fraction, self._timetable
        )


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


def _planners(context: Context, fraction: float | None = None) -> Iterator[Planner]:
    """One for each weighting to be tried, once it is measured what its errors do."""
    judge = sensitivity_judge(context)
    for by in candidates(context):
        if isinstance(context.spec.ranks, BudgetRanks) and judge:
            measure_sensitivities(context, by, judge)
        yield Planner(context, by, fraction)


def planned(context: Context) -> list[Alternatives]:
    """What `run` decided: one entry per candidate; none where the budget is still to be searched for."""
    return load(context.folder(Stage.PLAN) / PLANS, list[Alternatives])


def measure_sensitivities(context: Context, by: Weighting, judge: Judge) -> None:
    """Keep, for whoever plans under this weighting, what each layer's errors make the outputs diverge by."""

    def fresh() -> list[Layer]:
        layers = context.layers(context.dense.copy())
        weigh(context, layers, by)
        return undecided(layers, context.spec)

    sizes = SIZES[1::2] if judge.is_dear else SIZES
    found = sensitivities(context.dense, fresh, judge.divergence, remembered=judge.remembered, sizes=sizes)
    measured = [_Measured(layer=name, points=list(each.points)) for name, each in found.items()]
    save(context.folder(Stage.PLAN) / _SENSITIVITIES.format(by), measured)
