"""From a job's words to a plan: its rank selection on its layers, for one budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.contract.plan import LayerPlan, Plan
from app.contract.spec import (
    BudgetRanks,
    CrossValidationRanks,
    EnergyRanks,
    FractionRanks,
    JobSpec,
    Method,
    VbmfRanks,
    Weighting,
)
from app.planning.layers import Layer, Rank
from app.planning.prices import Counted, LayerTimes, Timed
from app.planning.rules import Decision, Rules, rules_of
from app.planning.selections import by_budget, by_energy, by_fraction, by_signal, explicit


@dataclass(frozen=True)
class Total:
    """The whole original's parameters, and MACs for batch 1."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Times:
    """Milliseconds: the original's, and those of its layers by name."""

    network_ms: float
    layers: Mapping[str, LayerTimes]


@dataclass(frozen=True)
class Findings:
    """What was found out for a plan beyond what its layers know: the fraction that cross-validation chose, or
    tries; the ranks of the signal by layer and method; times, without which a budget of time is taken for
    one of MACs."""

    fraction: float | None = None
    signal: Mapping[str, Mapping[str, Rank]] = field(default_factory=dict)
    times: Times | None = None


def make_plan(
    layers: Sequence[Layer],
    total: Total,
    spec: JobSpec,
    keep: float,
    by: Weighting = Weighting.NONE,
    findings: Findings | None = None,
) -> Plan:
    """The plan for one budget, of layers whose errors are in the norm of `by`; raises `PlanningError`."""
    found = findings or Findings()
    return _plan(keep, by, _decide(layers, total, spec, keep, found), total, found.times)


def _decide(
    layers: Sequence[Layer], total: Total, spec: JobSpec, keep: float, found: Findings
) -> list[Decision]:
    ranks, rules = spec.ranks, rules_of(spec, layers)
    price = Counted("parameters" if spec.target.of == "parameters" else "macs")
    if isinstance(ranks, BudgetRanks):
        return _by_budget(layers, rules, keep, total, found.times or price)
    if isinstance(ranks, FractionRanks | CrossValidationRanks):
        asked = ranks.fraction if isinstance(ranks, FractionRanks) else found.fraction
        return by_fraction(layers, rules, price=price, fraction=asked or keep)
    if isinstance(ranks, EnergyRanks):
        return by_energy(layers, rules, price=price, energy=ranks.energy)
    if isinstance(ranks, VbmfRanks):
        return by_signal(layers, rules, price=price, signal=found.signal)
    return explicit(layers, rules)


def _by_budget(
    layers: Sequence[Layer], rules: Rules, keep: float, total: Total, of: Times | Counted
) -> list[Decision]:
    if isinstance(of, Times):
        nanoseconds = round(of.network_ms * 1e6)
        return by_budget(layers, rules, price=Timed(of.layers), keep=keep, total=nanoseconds)
    counted = total.parameters if of.currency == "parameters" else total.macs
    return by_budget(layers, rules, price=of, keep=keep, total=counted)


def _plan(
    keep: float, by: Weighting, decisions: Sequence[Decision], total: Total, times: Times | None
) -> Plan:
    known = times.layers if times else {}
    layers = [_layer(decision, known.get(decision.layer.name)) for decision in decisions]
    saved = [layer.latency_ms[1] - layer.latency_ms[0] for layer in layers if layer.latency_ms]
    return Plan(
        keep=keep,
        weighting=by,
        parameters=total.parameters + sum(layer.parameters[1] - layer.parameters[0] for layer in layers),
        macs=total.macs + sum(layer.macs[1] - layer.macs[0] for layer in layers),
        predicted_ms=times.network_ms + sum(saved) if times else None,
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
