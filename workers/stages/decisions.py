"""From a job's words to decisions: the rank selections of the engine, and one plan for each budget."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from app.contract.plan import LayerPlan, Plan
from app.contract.spec import (
    BudgetRanks,
    CrossValidationRanks,
    EnergyRanks,
    FractionRanks,
    JobSpec,
    LayerRule,
    Method,
    VbmfRanks,
    Weighting,
)
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.measure import cost
from workers.engine.ranks.prices import Counted, LayerTimes, Timed
from workers.engine.ranks.selection import (
    Decision,
    Rules,
    by_budget,
    by_energy,
    by_fraction,
    by_vbmf,
    explicit,
)
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
    total = cost.count(network)
    decisions = _decide(layers, spec, keep, total, fraction, timetable)
    return _plan(keep, by, decisions, total, timetable)


def undecided(layers: Sequence[Layer], spec: JobSpec) -> list[Layer]:
    """The layers whose form the job's rules leave open."""
    rules = rules_of(spec, layers)
    return [layer for layer in layers if layer.name not in rules.kept and layer.name not in rules.rank]


def _decide(
    layers: Sequence[Layer],
    spec: JobSpec,
    keep: float,
    total: cost.Cost,
    fraction: float | None,
    timetable: Timetable | None,
) -> list[Decision]:
    ranks, rules = spec.ranks, rules_of(spec, layers)
    if isinstance(ranks, BudgetRanks):
        return _by_budget(layers, rules, spec, keep, total, timetable)
    price = Counted("parameters" if spec.target.of == "parameters" else "macs")
    if isinstance(ranks, FractionRanks | CrossValidationRanks):
        asked = ranks.fraction if isinstance(ranks, FractionRanks) else fraction
        return by_fraction(layers, rules, price=price, fraction=asked or keep)
    if isinstance(ranks, EnergyRanks):
        return by_energy(layers, rules, price=price, energy=ranks.energy)
    if isinstance(ranks, VbmfRanks):
        return by_vbmf(layers, rules, price=price)
    return explicit(layers, rules)


def _by_budget(
    layers: Sequence[Layer],
    rules: Rules,
    spec: JobSpec,
    keep: float,
    total: cost.Cost,
    timetable: Timetable | None,
) -> list[Decision]:
    if timetable:
        time = round(timetable.network_ms * 1e6)
        return by_budget(layers, rules, price=Timed(timetable.by_layer), keep=keep, total=time)
    if spec.target.of == "parameters":
        return by_budget(layers, rules, price=Counted("parameters"), keep=keep, total=total.parameters)
    return by_budget(layers, rules, price=Counted("macs"), keep=keep, total=total.macs)


def rules_of(spec: JobSpec, layers: Sequence[Layer]) -> Rules:
    """What the job's words fix about these layers."""
    matched = {layer.name: rule for layer in layers if (rule := _rule(spec.layers, layer.name))}
    return Rules(
        methods=frozenset(str(method) for method in spec.methods),
        kept=frozenset(name for name, rule in matched.items() if rule.method is Method.KEEP),
        method={
            name: rule.method.value
            for name, rule in matched.items()
            if rule.method not in (None, Method.KEEP)
        },
        rank={name: _rank(rule.rank) for name, rule in matched.items() if rule.rank is not None},
    )


def _rule(rules: Sequence[LayerRule], name: str) -> LayerRule | None:
    return next((rule for rule in rules if fnmatchcase(name, rule.match)), None)


def _rank(rank: int | list[int]) -> tuple[int, ...]:
    return (rank,) if isinstance(rank, int) else tuple(rank)


def _plan(
    keep: float, by: Weighting, decisions: Sequence[Decision], total: cost.Cost, timetable: Timetable | None
) -> Plan:
    times = timetable.by_layer if timetable else {}
    layers = [_layer(decision, times.get(decision.layer.name)) for decision in decisions]
    saved = [layer.latency_ms[1] - layer.latency_ms[0] for layer in layers if layer.latency_ms]
    return Plan(
        keep=keep,
        weighting=by,
        parameters=total.parameters + sum(layer.parameters[1] - layer.parameters[0] for layer in layers),
        macs=total.macs + sum(layer.macs[1] - layer.macs[0] for layer in layers),
        predicted_ms=timetable.network_ms + sum(saved) if timetable else None,
        layers=layers,
    )


def _layer(decision: Decision, times: LayerTimes | None) -> LayerPlan:
    layer, form = decision.layer, decision.form
    after = None if times is None else times.of(form) if form else times.dense_ms
    return LayerPlan(
        name=layer.name,
        method=Method(form.method) if form else Method.KEEP,
        rank=list(form.rank) if form else None,
        parameters=(layer.parameters, form.parameters if form else layer.parameters),
        macs=(layer.macs, form.macs if form else layer.macs),
        latency_ms=None if times is None or after is None else (times.dense_ms, after),
        discarded_energy=form.error if form else 0.0,
        reason=decision.reason,
    )
