"""The page tells what the code does."""

import re

from workers.engine.admit.onnx import OPSETS
from workers.engine.formats.onnx_in.coverage import PAGE, renewed, table


def test_the_table_of_operators_is_current() -> None:
    assert PAGE.read_text() == renewed(PAGE.read_text()), "run `make openapi` and review the difference"


def test_limits_stand_in_the_table_and_inner_operators_do_not() -> None:
    assert "| MaxPool | without the output Indices |" in table()
    assert "linear" not in re.findall(r"\w+", table().split("|\n")[2])


def test_the_operator_sets_are_those_of_the_code() -> None:
    assert f"operator set {OPSETS[0]} to {OPSETS[-1]}" in PAGE.read_text()
