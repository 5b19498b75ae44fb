"""Decisions on the engine's layers: what planning needs to know of them, and its errors as the engine's."""

from collections.abc import Sequence

from app.contract.plan import Plan
from app.contract.spec import JobSpec, VbmfRanks, Weighting
from app.planning.errors import PlanningError
from app.planning.layers import Rank
from app.planning.plans import Findings, Times, Total, make_plan
from app.planning.rules import Rules, rules_of
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.measure import cost
from workers.engine.ranks.selection import signal_rank
from workers.stages.timetable import Timetable


def decide(
    network: Network,
    layers: Sequence[Layer],
    spec: JobSpec,
    by: Weighting,
    keep: float,
    fraction: float | None = None,
    timetable: Timetable | None = None,
) -> Plan:
    """The plan for one budget, of layers that know their weightings; raises `EngineError`.

    `fraction` is the one that cross-validation chose, or tries; `timetable` are needed where the budget is a
    time, and taken for MACs where they are missing.
    """
    counted = cost.count(network)
    findings = Findings(
        fraction=fraction,
        signal=_signal(layers, rules_of(spec, layers)) if isinstance(spec.ranks, VbmfRanks) else {},
        times=Times(timetable.network_ms, timetable.by_layer) if timetable else None,
    )
    try:
        return make_plan(layers, Total(counted.parameters, counted.macs), spec, keep, by, findings)
    except PlanningError as error:
        problem = error.problem
        raise EngineError(
            problem.code, problem.detail, hint=problem.hint, layer=problem.layer, field=problem.field
        ) from error


def undecided(layers: Sequence[Layer], spec: JobSpec) -> list[Layer]:
    """The layers whose form the job's rules leave open."""
    rules = rules_of(spec, layers)
    return [layer for layer in layers if layer.name not in rules.kept and layer.name not in rules.rank]


def _signal(layers: Sequence[Layer], rules: Rules) -> dict[str, dict[str, Rank]]:
    """The rank of the signal by layer and method, where a method's rank is that of a matrix."""
    fixed = {*rules.kept, *rules.rank}
    ranks = {
        layer.name: {method: signal_rank(layer.methods[method]) for method in rules.allowed(layer)}
        for layer in layers
        if layer.name not in fixed
    }
    return {
        name: {method: rank for method, rank in each.items() if rank is not None}
        for name, each in ranks.items()
    }
