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
from workers.engine.ranks.selection import (
    Decision,
    Rules,
    by_budget,
    by_energy,
    by_fraction,
    by_vbmf,
    explicit,
)


def decide(
    network: Network,
    layers: Sequence[Layer],
    spec: JobSpec,
    by: Weighting,
    keep: float,
    fraction: float | None = None,
) -> Plan:
    """The plan for one budget, of layers that know their weightings; raises `EngineError`.

    `fraction` is the one that cross-validation chose, or tries.
    """
    total, matched = cost.count(network), _rules(spec, layers)
    in_currency = total.macs if spec.target.of == "macs" else total.parameters
    return _plan(keep, by, _decide(layers, matched, spec, keep, in_currency, fraction), total)


def undecided(layers: Sequence[Layer], spec: JobSpec) -> list[Layer]:
    """The layers whose form the job's rules leave open."""
    rules = _rules(spec, layers)
    return [layer for layer in layers if layer.name not in rules.kept and layer.name not in rules.rank]


def _decide(
    layers: Sequence[Layer], rules: Rules, spec: JobSpec, keep: float, total: int, fraction: float | None
) -> list[Decision]:
    ranks, of = spec.ranks, spec.target.of
    if isinstance(ranks, BudgetRanks):
        return by_budget(layers, rules, of=of, keep=keep, total=total)
    if isinstance(ranks, FractionRanks):
        return by_fraction(layers, rules, of=of, fraction=ranks.fraction or keep)
    if isinstance(ranks, CrossValidationRanks):
        return by_fraction(layers, rules, of=of, fraction=fraction or keep)
    if isinstance(ranks, EnergyRanks):
        return by_energy(layers, rules, of=of, energy=ranks.energy)
    if isinstance(ranks, VbmfRanks):
        return by_vbmf(layers, rules, of=of)
    return explicit(layers, rules)


def _rules(spec: JobSpec, layers: Sequence[Layer]) -> Rules:
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


def _plan(keep: float, by: Weighting, decisions: Sequence[Decision], total: cost.Cost) -> Plan:
    layers = [_layer(decision) for decision in decisions]
    return Plan(
        keep=keep,
        weighting=by,
        parameters=total.parameters + sum(layer.parameters[1] - layer.parameters[0] for layer in layers),
        macs=total.macs + sum(layer.macs[1] - layer.macs[0] for layer in layers),
        layers=layers,
    )


def _layer(decision: Decision) -> LayerPlan:
    layer, form = decision.layer, decision.form
    return LayerPlan(
        name=layer.name,
        method=Method(form.method) if form else Method.KEEP,
        rank=list(form.rank) if form else None,
        parameters=(layer.parameters, form.parameters if form else layer.parameters),
        macs=(layer.macs, form.macs if form else layer.macs),
        discarded_energy=form.error if form else 0.0,
        reason=decision.reason,
    )
