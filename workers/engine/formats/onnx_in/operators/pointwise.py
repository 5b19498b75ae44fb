"""Arithmetic, comparisons and logic, element by element."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import (
    Host,
    Value,
    as_tensor,
    each,
    is_symbolic,
    larger,
    on_host,
    scalar_for,
    smaller,
)

Binary = Callable[[Any, Any], Any]


def pair(
    x: Value, y: Value, of_tensors: Binary, of_numbers: Binary, dtype: torch.dtype | None = None
) -> Value:
    """A pointwise operator of two values, on the host where both are known."""
    if isinstance(x, Host) and isinstance(y, Host):
        return each(of_numbers, x, y, dtype=dtype)
    result: Value = of_tensors(scalar_for(x, y), scalar_for(y, x))
    return result


def _arithmetic(name: str, of_tensors: Binary, of_numbers: Binary) -> None:
    @operator(name)
    def apply(_: Call, x: Value, y: Value) -> Value:
        return pair(x, y, of_tensors, of_numbers)


def _comparison(name: str, of_tensors: Binary, of_numbers: Binary) -> None:
    @operator(name)
    def apply(_: Call, x: Value, y: Value) -> Value:
        # torch compares a tensor with a number in this order only
        if isinstance(scalar_for(x, y), Tensor):
            return pair(x, y, of_tensors, lambda a, b: bool(of_numbers(a, b)), torch.bool)
        return pair(as_tensor(x), y, of_tensors, of_numbers, torch.bool)


def _logic(name: str, of_tensors: Binary, of_numbers: Binary) -> None:
    @operator(name)
    def apply(_: Call, x: Value, y: Value) -> Value:
        if isinstance(x, Host) and isinstance(y, Host):
            return each(lambda a, b: of_numbers(bool(a), bool(b)), x, y, dtype=torch.bool)
        result: Value = of_tensors(as_tensor(x), as_tensor(y))
        return result


def _unary(
    name: str, of_tensors: Callable[[Tensor], Tensor], of_numbers: Callable[[Any], Any] | None = None
) -> None:
    @operator(name)
    def apply(_: Call, x: Value) -> Value:
        if isinstance(x, Host) and of_numbers is not None:
            return each(of_numbers, x)
        return of_tensors(as_tensor(x))


def _divided(x: Any, y: Any) -> Any:
    whole = not any(
        part.is_floating_point() if isinstance(part, Tensor) else isinstance(part, float) for part in (x, y)
    )
    return torch.div(x, y, rounding_mode="trunc") if whole else x / y


def _quotient(x: Any, y: Any) -> Any:
    if isinstance(x, float) or isinstance(y, float) or not (is_symbolic(x) or is_symbolic(y)):
        if isinstance(x, int) and isinstance(y, int):
            return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        return x / y
    symbolic_float = isinstance(x, torch.SymFloat) or isinstance(y, torch.SymFloat)
    return x / y if symbolic_float else x // y


def _power(x: Any, y: Any) -> Any:
    if isinstance(x, Tensor) and not x.is_floating_point():
        return torch.pow(x, y).to(x.dtype)
    return torch.pow(x, y) if isinstance(x, Tensor) or isinstance(y, Tensor) else x**y


def _tensors(function: Callable[[Tensor, Tensor], Tensor]) -> Binary:
    """`function` where numbers have to be tensors."""

    def apply(x: Any, y: Any) -> Any:
        like = x if isinstance(x, Tensor) else y
        first, second = (
            part if isinstance(part, Tensor) else torch.full((), part, dtype=like.dtype) for part in (x, y)
        )
        return function(first, second)

    return apply


_arithmetic("Add", lambda x, y: x + y, lambda x, y: x + y)
_arithmetic("Sub", lambda x, y: x - y, lambda x, y: x - y)
_arithmetic("Mul", lambda x, y: x * y, lambda x, y: x * y)
_arithmetic("Div", _divided, _quotient)
_arithmetic("Pow", _power, lambda x, y: x**y)
_arithmetic("BitwiseAnd", _tensors(torch.bitwise_and), lambda x, y: x & y)
_arithmetic("BitwiseOr", _tensors(torch.bitwise_or), lambda x, y: x | y)
_arithmetic("BitwiseXor", _tensors(torch.bitwise_xor), lambda x, y: x ^ y)
_comparison("Equal", torch.eq, lambda x, y: x == y)
_comparison("Greater", torch.gt, lambda x, y: x > y)
_comparison("GreaterOrEqual", torch.ge, lambda x, y: x >= y)
_comparison("Less", torch.lt, lambda x, y: x < y)
_comparison("LessOrEqual", torch.le, lambda x, y: x <= y)
_logic("And", torch.logical_and, lambda x, y: x and y)
_logic("Or", torch.logical_or, lambda x, y: x or y)
_logic("Xor", torch.logical_xor, lambda x, y: x != y)

_unary("Abs", torch.abs, lambda x: larger(x, -x))
_unary("Neg", torch.neg, lambda x: -x)
_unary("Sqrt", torch.sqrt, lambda x: x**0.5)
_unary("Floor", torch.floor, lambda x: x if is_symbolic(x) else math.floor(x))
_unary("Ceil", torch.ceil, lambda x: x if is_symbolic(x) else math.ceil(x))
_unary("Not", torch.logical_not, lambda x: not x)
_unary("Exp", torch.exp)
_unary("Log", torch.log)
_unary("Reciprocal", torch.reciprocal)
_unary("Erf", torch.erf)
_unary("Sign", torch.sign)
_unary("Round", torch.round)
_unary("Sin", torch.sin)
_unary("Cos", torch.cos)
_unary("Tan", torch.tan)
_unary("Asin", torch.asin)
_unary("Acos", torch.acos)
_unary("Atan", torch.atan)
_unary("Sinh", torch.sinh)
_unary("Cosh", torch.cosh)
_unary("Asinh", torch.asinh)
_unary("Acosh", torch.acosh)
_unary("Atanh", torch.atanh)
_unary("IsNaN", torch.isnan)
_unary("BitwiseNot", torch.bitwise_not)


@operator("Mod")
def mod(call: Call, x: Value, y: Value) -> Value:
    """The remainder, with the divisor's sign, or the dividend's where `fmod` is set."""
    if call.get("fmod", 0):
        return pair(x, y, torch.fmod, math.fmod)
    return pair(x, y, torch.remainder, lambda a, b: a % b)


@operator("IsInf")
def is_inf(call: Call, x: Value) -> Tensor:
    """Infinite in either direction or in one."""
    values = as_tensor(x)
    both = [call.get("detect_negative", 1), call.get("detect_positive", 1)]
    if all(both):
        return torch.isinf(values)
    return (
        values == (float("-inf") if both[0] else float("inf"))
        if any(both)
        else torch.zeros_like(values).bool()
    )


def _extreme(
    of_tensors: Callable[[Tensor, Tensor], Tensor], of_numbers: Binary, values: tuple[Value, ...]
) -> Value:
    result = values[0]
    for value in values[1:]:
        result = pair(result, value, _tensors(of_tensors), of_numbers)
    return result


@operator("Max")
def maximum(_: Call, *values: Value) -> Value:
    """The largest of all values."""
    return _extreme(torch.maximum, larger, values)


@operator("Min")
def minimum(_: Call, *values: Value) -> Value:
    """The smallest of all values."""
    return _extreme(torch.minimum, smaller, values)


@operator("Sum")
def total(_: Call, *values: Value) -> Value:
    """The sum of all values."""
    result = values[0]
    for value in values[1:]:
        result = pair(result, value, lambda x, y: x + y, lambda x, y: x + y)
    return result


@operator("Mean")
def mean(call: Call, *values: Value) -> Value:
    """The mean of all values."""
    return as_tensor(total(call, *values)) / len(values)


@operator("Where")
def where(_: Call, condition: Value, x: Value, y: Value) -> Value:
    """`x` where the condition holds, else `y`."""
    if (
        on_host(condition, x, y)
        and isinstance(condition, Host)
        and isinstance(x, Host)
        and isinstance(y, Host)
    ):
        arrays = np.broadcast_arrays(condition.array, x.array, y.array)
        chosen = [a if bool(c) else b for c, a, b in zip(*(array.flat for array in arrays), strict=True)]
        array = np.empty(len(chosen), dtype=object)
        array[:] = chosen
        return Host(array.reshape(arrays[0].shape), x.dtype)
    return torch.where(as_tensor(condition), as_tensor(x), as_tensor(y))


@operator("Clip")
def clip(call: Call, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Values between two bounds, either of which may be left out."""
    bounds = [call.maybe("min"), call.maybe("max")] if call.opset < 11 else [low, high]
    if all(bound is None or isinstance(bound, (int, float, Host)) for bound in bounds):
        least, most = (bound.array.flat[0] if isinstance(bound, Host) else bound for bound in bounds)
        values = as_tensor(x)
        return values if least is None and most is None else torch.clamp(values, least, most)  # type: ignore[arg-type]
    result = as_tensor(x)
    result = result if low is None else torch.maximum(result, as_tensor(low))
    return result if high is None else torch.minimum(result, as_tensor(high))
