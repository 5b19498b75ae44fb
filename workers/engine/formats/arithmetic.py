"""Arithmetic on lengths, as a foreign graph asks for it: Python's own knows no bounds."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from workers.engine.errors import Rejected

_PACKAGES = {"_operator": operator, "math": math, "torch": torch}
_NUMBERS = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
_LARGEST = 1 << 63
_LARGEST_EXPONENT = 16


def arithmetic(target: str) -> Callable[..., Any] | None:
    """The function that a name in `workers.engine.admit.operators.SYMBOLIC` stands for; None for another.

    It takes numbers alone, of which it makes numbers of 64 bits: a list times a length, a text with a width
    or a power of a power would fill all memory there is. Raises `Rejected` (`bad_arithmetic`).
    """
    package, _, name = target.rpartition(".")
    if package not in _PACKAGES:
        return None
    function: Callable[..., Any] = getattr(_PACKAGES[package], name)
    return function if function is operator.getitem else _bounded(function)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*operands: Any) -> Any:
        if not all(isinstance(operand, _NUMBERS) for operand in operands):
            raise _bad("operands that are not numbers")
        if function is operator.pow and not _is_small(operands[-1]):
            raise _bad("an exponent that is not small")
        try:
            result = function(*operands)
        except (ArithmeticError, ValueError) as error:
            raise _bad(f"operands that it is not defined for ({error})") from None
        if isinstance(result, int) and abs(result) >= _LARGEST:
            raise _bad("a result of more than 64 bits")
        return result

    return compute


def _is_small(exponent: Any) -> bool:
    return isinstance(exponent, int | float) and abs(exponent) <= _LARGEST_EXPONENT


def _bad(what: str) -> Rejected:
    return Rejected(
        "bad_arithmetic",
        f"The model computes a length with {what}.",
        hint="Compute with tensors what is not a length, and export again.",
    )
