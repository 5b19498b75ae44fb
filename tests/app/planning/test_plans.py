"""Plans from hand-made menus, against every combination there is."""

import math
import time
from itertools import product
from random import Random
from typing import Any

import pytest

from app.contract.menu import Menu, Offer
from app.contract.plan import Plan
from app.contract.spec import Decomposition, JobSpec, Method
from app.contract.summary import LayerInfo
from app.planning.errors import PlanningError
from app.planning.menus import MenuLayer, menu_layers
from app.planning.plans import Total, make_plan

MODEL = "mdl_" + "0" * 32
SVD = Decomposition.SVD


def _layer(name: str, side: int, errors: list[float], step: int = 8) -> tuple[LayerInfo, Menu]:
    """A square matrix whose forms at multiples of `step` have these errors."""
    info = LayerInfo(
        name=name, kind="linear", shape=[side, side], parameters=side**2, macs=side**2,
        methods=["svd"], max_rank={"svd": [side]},
    )  # fmt: skip
    forms = [([step * place], error) for place, error in enumerate(errors, 1)]
    offer = Offer(parameters=[0, 2 * side], macs=[0, 2 * side], forms=forms)
    return info, Menu(layer=name, offers={SVD: offer})


def _layers(*made: tuple[LayerInfo, Menu]) -> list[MenuLayer]:
    return menu_layers([info for info, _ in made], [menu for _, menu in made])


def _plan(known: list[MenuLayer], keep: float = 0.5, **body: Any) -> Plan:
    spec = JobSpec.model_validate({"model": MODEL, "target": {"keep": keep}} | body)
    return make_plan(known, Total(sum(each.parameters for each in known), _macs(known)), spec, keep)


def _macs(layers: list[MenuLayer]) -> int:
    return sum(each.macs for each in layers)


def _loss(plan: Plan) -> float:
    return sum(-math.log(max(1.0 - layer.discarded_energy, 1e-12)) for layer in plan.layers)


def _falling(drawn: Random, count: int) -> list[float]:
    return sorted((drawn.uniform(0.01, 0.9) for _ in range(count)), reverse=True)


@pytest.mark.parametrize("seed", range(12))
def test_a_budget_is_met_within_one_steps_loss_of_the_best_combination(seed: int) -> None:
    drawn = Random(seed)  # noqa: S311 -- not for secrets
    made = [_layer(f"{place}", 64, _falling(drawn, 3)) for place in range(4)]
    layers, keep = _layers(*made), drawn.uniform(0.35, 0.95)
    plan = _plan(layers, keep)
    budget = keep * _macs(layers)
    assert plan.macs <= budget
    every = product(*([*layer.methods["svd"].forms(8), None] for layer in layers))
    losses = [
        sum(-math.log(1.0 - form.error) for form in forms if form)
        for forms in every
        if sum(form.macs if form else 64**2 for form in forms) <= budget
    ]
    steps = [-math.log(1.0 - max(form.error for form in layer.methods["svd"].forms(8))) for layer in layers]
    assert min(losses) - 1e-9 <= _loss(plan) <= min(losses) + max(steps)


def test_ranks_off_the_coarse_grid_are_for_budgets_that_it_cannot_reach() -> None:
    info, menu = _layer("a", 64, [0.5, 0.3, 0.1])
    fine = menu.offers[SVD].model_copy(update={"forms": [([2], 0.9), *menu.offers[SVD].forms]})
    layers = _layers((info, Menu(layer="a", offers={SVD: fine})))
    [layer] = _plan(layers, 0.76).layers
    assert layer.rank == [24]
    [layer] = _plan(layers, 0.1).layers
    assert layer.rank == [2]
    with pytest.raises(PlanningError) as raised:
        _plan(layers, 0.01)
    problem = raised.value.problem
    assert (problem.code, problem.field, problem.status) == ("budget_unreachable", "target.keep", 422)
    assert "6.25%" in problem.detail


def test_each_selection_looks_at_what_it_says() -> None:
    layers = _layers(_layer("a", 64, [0.5, 0.3, 0.1]), _layer("b", 64, [0.2, 0.1, 0.05]))
    by_fraction = _plan(layers, ranks={"selection": "fraction", "fraction": 0.55}).layers
    assert [layer.rank for layer in by_fraction] == [[16], [16]]
    by_energy = _plan(layers, ranks={"selection": "energy", "energy": 0.75}).layers
    assert [layer.rank for layer in by_energy] == [[24], [8]]
    rules: list[Any] = [{"match": "b", "rank": 10}]
    by_hand = _plan(layers, ranks={"selection": "explicit"}, layers=rules).layers
    assert [layer.rank for layer in by_hand] == [None, [10]]
    assert by_hand[1].macs == (64**2, 2 * 64 * 10)
    assert by_hand[1].discarded_energy == 0.2  # of the next smaller rank that is known


def test_the_first_rule_that_matches_decides_and_reasons_are_given() -> None:
    made = [_layer(name, 64, [0.5, 0.3]) for name in ("a.1", "a.2", "b")]
    bare = LayerInfo(name="c", kind="conv2d", shape=[8, 1, 3, 3], parameters=72, macs=0, reason="depthwise")
    layers = menu_layers([*(info for info, _ in made), bare], [menu for _, menu in made])
    rules: list[Any] = [
        {"match": "a.1", "method": "keep"},
        {"match": "a.*", "rank": 8},
        {"match": "b", "rank": 60},
    ]
    found = _plan(layers, 0.9, layers=rules).layers
    assert [layer.method for layer in found] == [Method.KEEP, Method.SVD, Method.KEEP, Method.KEEP]
    assert found[0].reason == "a layer rule keeps it dense"
    assert found[2].reason
    assert found[3].reason == "depthwise"


def test_a_network_of_the_size_of_resnet_50_is_planned_within_two_seconds() -> None:
    drawn = Random(0)  # noqa: S311 -- not for secrets
    made = [_layer(f"layers.{place}", 1024, _falling(drawn, 48)) for place in range(53)]
    methods = [SVD, Decomposition.TUCKER, Decomposition.CHANNEL_SVD, Decomposition.SPATIAL_SVD]
    infos = [
        info.model_copy(update={"max_rank": {method.value: [1024] for method in methods}}) for info, _ in made
    ]
    menus = [Menu(layer=menu.layer, offers=dict.fromkeys(methods, menu.offers[SVD])) for _, menu in made]
    started = time.perf_counter()
    plan = _plan(menu_layers(infos, menus), 0.2)
    assert time.perf_counter() - started < 2.0
    assert plan.macs <= 0.2 * 53 * 1024**2
