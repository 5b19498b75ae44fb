"""Allocation against brute force."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.planning.allocation import Option, UnreachableBudgetError, allocate, front

_option = st.builds(Option, cost=st.integers(0, 50), loss=st.floats(0, 10, allow_nan=False))
_layers = st.lists(st.lists(_option, min_size=1, max_size=5), min_size=1, max_size=4)


def _cost(layers: list[list[Option]], chosen: list[int]) -> int:
    return sum(options[i].cost for options, i in zip(layers, chosen, strict=True))


def _loss(layers: list[list[Option]], chosen: list[int]) -> float:
    return sum(options[i].loss for options, i in zip(layers, chosen, strict=True))


def _best(layers: list[list[Option]], budget: int) -> float:
    every = product(*(range(len(options)) for options in layers))
    return min(_loss(layers, list(pick)) for pick in every if _cost(layers, list(pick)) <= budget)


@settings(max_examples=200, deadline=None)
@given(_layers, st.integers(0, 200))
def test_the_budget_is_never_exceeded_and_the_loss_is_within_one_step_of_the_optimum(
    layers: list[list[Option]], budget: int
) -> None:
    least = sum(min(option.cost for option in options) for options in layers)
    if budget < least:
        with pytest.raises(UnreachableBudgetError) as raised:
            allocate(layers, budget)
        assert raised.value.least == least
        return
    chosen = allocate(layers, budget)
    assert _cost(layers, chosen) <= budget
    step = max(max(o.loss for o in options) - min(o.loss for o in options) for options in layers)
    assert _loss(layers, chosen) <= _best(layers, budget) + step + 1e-9


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 60)
)
def test_convex_layers_of_equal_steps_are_solved_exactly(gains: list[list[int]], budget: int) -> None:
    layers = []
    for layer in gains:
        falling = sorted(layer, reverse=True)
        layers.append([Option(i, float(sum(falling[i:]))) for i in range(len(falling) + 1)])
    assert _loss(layers, allocate(layers, budget)) == _best(layers, budget)


def test_the_front_drops_what_is_dearer_and_no_better() -> None:
    options = [Option(5, 1.0), Option(3, 2.0), Option(4, 2.0), Option(6, 0.5), Option(7, 0.5)]
    assert front(options) == [1, 0, 3]
