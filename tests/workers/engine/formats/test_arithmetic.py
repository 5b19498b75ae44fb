"""Arithmetic on lengths: what is usual works, and nothing fills the memory."""

import time
from typing import Any

import pytest

from workers.engine.admit.operators import SYMBOLIC
from workers.engine.errors import Rejected
from workers.engine.formats.arithmetic import arithmetic


def compute(name: str, *operands: Any) -> Any:
    function = arithmetic(name)
    assert function is not None
    return function(*operands)


@pytest.mark.parametrize("name", sorted(SYMBOLIC))
def test_every_admitted_operator_is_there(name: str) -> None:
    assert callable(arithmetic(name))


def test_operators_of_torch_are_none_of_them() -> None:
    assert arithmetic("torch.ops.aten.add.Tensor") is None


def test_lengths_are_computed() -> None:
    assert compute("_operator.add", 3, 4) == 7
    assert compute("_operator.floordiv", 7, 2) == 3
    assert compute("_operator.pow", 7, 2) == 49
    assert compute("_operator.mod", 7.5, 2) == 1.5
    assert compute("math.floor", 3.7) == 3
    assert compute("_operator.getitem", (3, 4), 1) == 4


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("_operator.pow", (1 << 62, 1 << 62)),
        ("_operator.pow", (2, 64)),
        ("_operator.pow", (2, float("inf"))),
        ("_operator.mul", (1 << 62, 2)),
        ("_operator.mul", ([1], 1 << 40)),
        ("_operator.mul", ("a", 1 << 40)),
        ("_operator.add", ([1], [2])),
        ("_operator.mod", ("%9999999999d", 1)),
        ("_operator.floordiv", (1, 0)),
        ("math.floor", (float("nan"),)),
        ("math.floor", (float("inf"),)),
    ],
)
def test_what_has_no_bounds_is_refused_at_once(name: str, operands: tuple[Any, ...]) -> None:
    began = time.process_time()
    with pytest.raises(Rejected) as caught:
        compute(name, *operands)
    assert caught.value.code == "bad_arithmetic"
    assert time.process_time() - began < 0.1
