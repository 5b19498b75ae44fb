"""Differences relative to the largest value, without the rounding of one."""

import math

import pytest

from workers.engine.rounding import relative


@pytest.mark.parametrize(
    ("apart", "largest", "expected"),
    [
        (1.0, 5.0, 0.2),
        (0.5, 0.0, 0.5),
        (0.0, 0.0, 0.0),
        (1.4e-7, 6.4e-5, 0.0),  # what ONNX Runtime's Sigmoid is off by
        (1e-6, 1e-4, 0.0076),
        (1e-7, 1e-7, 0.99),  # small outputs are compared, too
        (math.inf, 1.0, math.inf),
    ],
)
def test_a_difference_is_relative(apart: float, largest: float, expected: float) -> None:
    assert relative(apart, largest) == pytest.approx(expected, rel=0.01)


def test_what_is_not_a_number_stays_so() -> None:
    assert math.isnan(relative(math.nan, 1.0))
