"""Deciding each layer's form: from the user's rules and budget to one plan per candidate."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from app.contract.base import Contract
from app.contract.plan import LayerPlan, Plan
from app.contract.spec import (
    BudgetRanks,
    EnergyRanks,
    FractionRanks,
    JobSpec,
    LayerRule,
    Method,
    Weighting,
)
from app.contract.status import Stage
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find
from workers.engine.measure import cost
from workers.engine.ranks.selection import Decision, Rules, by_budget, by_energy, by_fraction, explicit
from workers.engine.ranks.sensitivity import sensitivities
from workers.stages.calibration import Judge, candidates, gather, sensitivity_judge, weigh
from workers.stages.context import Context, load, save

PLANS = "plans.json"


class Alternatives(Contract):
    """One candidate's plans, one for each weighting: decomposing decides between them."""

    plans: list[Plan]


def run(context: Context) -> None:
    """Plan every candidate; say which layers stay dense and why."""
    gather(context, find(context.original))
    weightings = candidates(context)
    if weightings == [Weighting.NONE]:
        context.notice("not_calibrated", "No calibration data: the ranks are chosen by the weights alone.")
    judge = sensitivity_judge(context)
    by_weighting = []
    for done, by in enumerate(weightings):
        by_weighting.append(_plans(context, by, judge))
        context.advance(Stage.PLAN, (done + 1) / len(weightings))
    alternatives = [Alternatives(plans=list(plans)) for plans in zip(*by_weighting, strict=True)]
    _report_dense(context, alternatives[0].plans[0])
    save(context.folder(Stage.PLAN) / PLANS, alternatives)


def planned(context: Context) -> list[Alternatives]:
    """What `run` decided: one entry per candidate."""
    return load(context.folder(Stage.PLAN) / PLANS, list[Alternatives])


def _plans(context: Context, by: Weighting, judge: Judge) -> list[Plan]:
    """One plan per `target.keep` under one weighting, from one decomposition's spectra."""
    layers = find(context.original)
    weigh(context, layers, by)
    if isinstance(context.spec.ranks, BudgetRanks) and judge:
        measured = _sensitivities(context, by, judge)
        for layer in layers:
            layer.sensitivity = measured.get(layer.name)
    return plan(context.original, layers, context.spec, by)


def _sensitivities(context: Context, by: Weighting, judge: Judge) -> dict[str, float]:
    tried = find(context.original.copy())
    weigh(context, tried, by)
    return sensitivities(context.original, tried, _rules(context.spec, tried), judge.divergence)


def _report_dense(context: Context, plan: Plan) -> None:
    for layer in plan.layers:
        if layer.method is Method.KEEP and layer.reason:
            context.notice("kept_dense", f"{layer.name} stays dense: {layer.reason}.", layer.name)


def plan(network: Network, layers: Sequence[Layer], spec: JobSpec, by: Weighting) -> list[Plan]:
    """One plan per `target.keep` for layers that know their weightings; raises `EngineError`."""
    total, rules = cost.count(network), _rules(spec, layers)
    in_currency = total.macs if spec.target.of == "macs" else total.parameters
    return [
        _plan(keep, by, _decide(layers, rules, spec, keep, in_currency), total) for keep in spec.target.keeps
    ]


def _decide(layers: Sequence[Layer], rules: Rules, spec: JobSpec, keep: float, total: int) -> list[Decision]:
    ranks, of = spec.ranks, spec.target.of
    if isinstance(ranks, BudgetRanks):
        return by_budget(layers, rules, of=of, keep=keep, total=total)
    if isinstance(ranks, FractionRanks):
        return by_fraction(layers, rules, of=of, fraction=ranks.fraction or keep)
    if isinstance(ranks, EnergyRanks):
        return by_energy(layers, rules, of=of, energy=ranks.energy)
    return explicit(layers, rules, of=of)


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
