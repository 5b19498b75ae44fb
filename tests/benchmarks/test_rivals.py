"""Rivals of the budget: the numbers they are bisected by, and that they spend what they are given."""

from collections.abc import Callable
from math import floor

import pytest

from app.planning.rules import Rules
from benchmarks import rivals
from benchmarks.rivals import Choice, Menus, Rival, largest_within, least_share, meet, scaled
from tests.workers.engine.networks import Convolutional, image_network, seeded
from workers.engine.layers.find import find

CURVE = [(0.1, 0.5), (0.5, 0.7), (0.7, 0.6), (1.0, 0.9)]


def _menus() -> Menus:
    seeded()
    layers = find(image_network(Convolutional(width=48), size=16))
    return Menus(layers, Rules(frozenset({"svd", "tucker", "spatial_svd"})))


def _price(menus: Menus) -> Callable[[Choice], int]:
    dense = {layer.name: layer.macs for layer in menus.layers}

    def price(choice: Choice) -> int:
        return sum(form.macs if form else dense[name] for name, form in choice.items())

    return price


def _greedy(menus: Menus) -> Rival:
    """By scores as if layers later in the network were dearer to it."""
    return rivals.greedy(
        menus,
        {
            layer.name: [(share, 0.9 - 0.1 * place * (1.0 - share)) for share in (*rivals.SHARES, 1.0)]
            for place, layer in enumerate(menus.layers)
            if menus.forms(layer, 8)
        },
    )


RIVALS = {"uniform": rivals.uniform, "energy": rivals.energy, "vbmf": rivals.vbmf, "greedy": _greedy}


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("keep", [0.7, 0.35])
def test_the_budget_is_met_from_below(name: str, keep: float) -> None:
    menus = _menus()
    price = _price(menus)
    budget = floor(keep * price(dict.fromkeys(layer.name for layer in menus.layers)))
    choice = meet(RIVALS[name](menus), price, budget)
    assert choice is not None
    assert 0.93 * budget <= price(choice) <= budget


@pytest.mark.parametrize("name", RIVALS)
def test_the_cost_rises_with_the_number(name: str) -> None:
    menus = _menus()
    price, rival = _price(menus), RIVALS[name](menus)
    numbers = [rival.low + (rival.high - rival.low) * i / 60 for i in range(61)]
    costs = [price(rival.choose(number, 8)) for number in numbers]
    assert costs == sorted(costs)
    assert len(set(costs)) > 3
    assert costs[-1] == price(dict.fromkeys(layer.name for layer in menus.layers))


@pytest.mark.parametrize("name", RIVALS)
def test_a_budget_below_the_cheapest_forms_is_not_met(name: str) -> None:
    menus = _menus()
    assert meet(RIVALS[name](menus), _price(menus), 10) is None


def test_uniform_keeps_every_layer_within_the_same_share_and_takes_the_least_error() -> None:
    menus = _menus()
    for layer in menus.layers:
        forms = menus.forms(layer, 8)
        if not forms or forms[0].macs > 0.4 * layer.macs:
            continue
        form = menus.within(layer, 0.4, 8)
        assert form is not None
        assert form.macs <= 0.4 * layer.macs
        assert form.error == min(each.error for each in forms if each.macs <= 0.4 * layer.macs)
        assert menus.within(layer, 1.0, 8) is None


def test_what_must_reach_a_share_has_no_less_of_it() -> None:
    menus = _menus()
    for layer in menus.layers:
        for form in menus.forms(layer, 8):
            assert menus.reaching(layer, form.macs / layer.macs, 8) == form
            above = menus.reaching(layer, (form.macs + 1) / layer.macs, 8)
            assert above is None or above.macs > form.macs
        assert menus.reaching(layer, 1.0 - 1e-9, 8) is None


def test_energy_takes_the_cheapest_form_that_holds_it() -> None:
    menus = _menus()
    choice = rivals.energy(menus).choose(0.9, 1)
    assert any(choice.values())
    for layer in menus.layers:
        holding = [form.macs for form in menus.forms(layer, 1) if form.error <= 0.1]
        form = choice[layer.name]
        assert (form.macs if form else None) == min(holding, default=None)


def test_bisection_finds_the_last_number_within_the_budget() -> None:
    assert largest_within(lambda x: round(1000 * x), 250, 0.0, 1.0) == pytest.approx(0.2505, abs=1e-9)
    assert largest_within(lambda x: 3 if x < 0.6 else 9, 5, 0.0, 1.0) == pytest.approx(0.6)
    assert largest_within(lambda _: 3, 5, 0.0, 2.0) == 2.0
    assert largest_within(lambda _: 7, 5, 0.0, 1.0) is None


def test_finer_ranks_are_tried_only_where_coarse_ones_miss_the_budget() -> None:
    tried: list[int] = []

    def choose(number: float, step: int) -> Choice:
        tried.append(step)
        return {"layer": None} if number > 0.5 else {}

    assert meet(Rival(choose), lambda choice: 50 * len(choice) + 50, 51) == {}
    assert set(tried) == {8}
    assert meet(Rival(choose), lambda choice: 50 * len(choice) + 50, 90) == {}
    assert set(tried) == {8, 4, 2, 1}


def test_scaled_ranks_stay_within_what_a_layer_has() -> None:
    assert scaled((4, 10), 1.5, (64, 12)) == (6, 12)
    assert scaled((4, 10), 0.0, (64, 12)) == (1, 1)


def test_the_least_share_is_where_the_score_reaches_the_threshold() -> None:
    assert least_share(CURVE, 0.4) == 0.1
    assert least_share(CURVE, 0.6) == pytest.approx(0.3, abs=1e-4)
    assert least_share(CURVE, 0.8) == pytest.approx(0.85, abs=1e-4)
    assert least_share(CURVE, 0.91) == 1.0


def test_a_larger_share_is_no_worse_and_none_is_better_than_the_original() -> None:
    assert least_share(CURVE, 0.7) == pytest.approx(0.5, abs=1e-4)
    assert least_share([(0.2, 0.95), (1.0, 0.9)], 0.9) == 0.2


def test_layers_that_score_alike_rise_together_and_leave_no_share_out() -> None:
    level = [[(0.2, 0.9), (1.0, 0.9)], [(0.1, 0.5), (0.4, 0.9), (1.0, 0.9)]]
    thresholds = [0.9 + 1e-6 * share for share in (0.5, 0.7, 0.9)]
    for curve in level:
        found = [least_share(curve, threshold) for threshold in thresholds]
        assert found == pytest.approx([0.5, 0.7, 0.9], abs=1e-6)
