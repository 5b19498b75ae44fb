"""The cheapest budget that a network bears, where the user bounds the loss rather than the cost."""

import math
from collections.abc import Callable

from app.contract.plan import LayerPlan, Plan
from app.contract.report import LOWER_IS_BETTER, Metric
from app.contract.spec import BudgetRanks, Method, Task, Weighting
from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import rank_classes
from workers.engine.measure import fidelity
from workers.engine.padding import real_positions
from workers.stages import judge
from workers.stages.context import Context
from workers.stages.plan import planner_of

_HALVINGS = 6  # of the range of budgets: its sixty-fourth is less than the grid of ranks resolves
_AGREEMENT = 0.8  # by default


def bounded(context: Context, plan: Plan, network: Network, make: Callable[[Plan], Network]) -> Plan:
    """A plan under the same weighting whose loss is within what the job bears: the one of the least budget
    where that is to be found; else the given one, or a dearer one that leaves more layers dense.

    `network` is what came of the plan; `make` carries others out. Raises `EngineError` (`too_few_rows`) where
    there are no rows to judge by.
    """
    if context.spec.target.max_drop is not None:
        return _cheapest(context, plan.weighting, make, _within_drop(context), 0.0)
    demanded = _demanded_agreement(context)
    rows = context.splits.selection
    if not demanded or rows is None:
        return plan
    agreement = _agreement(context, rows)
    found = agreement(network)
    if found >= demanded:
        return plan
    dearer = _cheapest(
        context, plan.weighting, make, lambda network: agreement(network) >= demanded, plan.keep
    )
    context.notice(
        "budget_missed",
        f"At {plan.keep:g} of the {context.spec.target.of} the outputs are sure to name the same class on "
        f"{found:.0%} of the rows held out only, not on {demanded:.0%}: more layers stay dense. "
        "Train data to fine-tune on, or a lower `target.min_agreement`, allow for less.",
    )
    return dearer.model_copy(update={"keep": plan.keep, "layers": _with_reasons(dearer, plan)})


def _cheapest(
    context: Context,
    by: Weighting,
    make: Callable[[Plan], Network],
    bears: Callable[[Network], bool],
    low: float,
) -> Plan:
    """The plan of the least budget from `low` on that the network bears, by bisection: as if it bore all
    above it too. The original, at 1, is borne."""
    planner, high = planner_of(context, by), 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        try:
            borne = bears(make(planner(middle)))
        except EngineError:  # no ranks are that cheap
            borne = False
        low, high = (low, middle) if borne else (middle, high)
    return planner(high)


def _with_reasons(dearer: Plan, plan: Plan) -> list[LayerPlan]:
    """The layers of the dearer plan; those that only the cheaper one factorizes say why."""
    cut = {layer.name for layer in plan.layers if layer.method is not Method.KEEP}
    reason = "with less of it the outputs would no longer name the same classes"
    return [
        layer.model_copy(update={"reason": reason})
        if layer.method is Method.KEEP and layer.name in cut
        else layer
        for layer in dearer.layers
    ]


def _within_drop(context: Context) -> Callable[[Network], bool]:
    """Whether the metric on the rows kept for selection falls by at most `target.max_drop`, relative to
    itself where less is better."""
    rows = _rows(context)
    whole, most = _metric(context, context.original, rows), context.spec.target.max_drop or 0.0

    def bears(network: Network) -> bool:
        found = _metric(context, network, rows)
        if whole.name in LOWER_IS_BETTER:
            return found.value <= whole.value * (1.0 + most)
        return found.value >= whole.value - most

    return bears


def _demanded_agreement(context: Context) -> float | None:
    """By default it is demanded of scores that no labels judge and no training mends."""
    spec = context.spec
    if not isinstance(spec.ranks, BudgetRanks) or spec.target.min_agreement is not None:
        return spec.target.min_agreement
    trains = context.splits.fit is not None and spec.finetune.epochs > 0
    judged = context.task is not Task.NONE or trains
    return None if judged or not rank_classes(context.original) else _AGREEMENT


def _agreement(context: Context, rows: Examples) -> Callable[[Network], float]:
    """On how much of the rows a network's outputs name the original's class, less the standard error of that
    share: few rows prove little. On all of them where the outputs name no class."""
    wanted = judge.outputs(context.original, rows)
    positions = real_positions(context.original.inputs, rows.inputs)

    def agreement(network: Network) -> float:
        found = fidelity.compare(wanted, judge.outputs(network, rows), positions)
        share = 1.0 if found.top1_agreement is None else found.top1_agreement
        return share - math.sqrt(share * (1.0 - share) / found.n)

    return agreement


def _rows(context: Context) -> Examples:
    rows = context.splits.selection
    if rows is None or not judge.judgeable(context, rows):
        raise EngineError(
            "too_few_rows",
            "There are too few labelled rows besides the test rows to see how far the metric falls.",
            hint="Name train data: a tenth of it is kept for this. Or give `target.keep`.",
            field="data.train",
        )
    return rows


def _metric(context: Context, network: Network, rows: Examples) -> Metric:
    found = judge.metric(context, judge.outputs(network, rows), rows)
    if found is None:
        raise ValueError("rows that can be judged have a metric")
    return found
