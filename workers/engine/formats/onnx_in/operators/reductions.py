"""Sums, means and extremes over axes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Host, Value, as_tensor, host, ints

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(
    name: str, of_tensors: Reduction, of_numbers: Callable[[list[Any]], Any] | None = None
) -> None:
    @operator(name)
    def apply(call: Call, x: Value, axes: Value | None = None) -> Value:
        places = ints(axes, "axes") if axes is not None else list[int](call.get("axes", ()))
        keep = bool(call.get("keepdims", 1))
        if not places and call.get("noop_with_empty_axes", 0):
            return x
        if isinstance(x, Host) and of_numbers is not None and x.ndim <= 1:
            return host([of_numbers(list(x.array.flat))], x.dtype, (1,) * x.ndim if keep else ())
        values = as_tensor(x)
        return of_tensors(values, places or list(range(values.ndim)), keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keep, dtype=x.dtype)
    return x


def _norm(order: float) -> Reduction:
    return lambda x, axes, keep: torch.linalg.vector_norm(x, order, axes, keep)


_reduction("ReduceSum", lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype), sum)
_reduction("ReduceMean", lambda x, axes, keep: x.mean(axes, keep))
_reduction("ReduceMax", torch.amax, max)
_reduction("ReduceMin", torch.amin, min)
_reduction("ReduceProd", _product, math.prod)
_reduction("ReduceL1", _norm(1.0))
_reduction("ReduceL2", _norm(2.0))
_reduction("ReduceSumSquare", lambda x, axes, keep: x.square().sum(axes, keep))
_reduction("ReduceLogSum", lambda x, axes, keep: x.sum(axes, keep).log())
_reduction("ReduceLogSumExp", torch.logsumexp)


@operator("ArgMax")
def arg_max(call: Call, x: Value) -> Tensor:
    """Where the largest value of an axis is, the first or the last of them."""
    return _arg(call, as_tensor(x), torch.argmax)


@operator("ArgMin")
def arg_min(call: Call, x: Value) -> Tensor:
    """Where the smallest value of an axis is, the first or the last of them."""
    return _arg(call, as_tensor(x), torch.argmin)


def _arg(call: Call, x: Tensor, function: Callable[[Tensor, int, bool], Tensor]) -> Tensor:
    axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
    if not call.get("select_last_index", 0):
        return function(x, axis, keep)
    return x.shape[axis] - 1 - function(x.flip([axis]), axis, keep)
