"""Integers that stand for numbers: accepted where they are constants, and computed once."""

import torch
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Value, as_tensor

_LIMITS = "of constants, without blocks"
_BOUNDS = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.int16: (-32768, 32767)}


@operator("DequantizeLinear", limits=_LIMITS)
def dequantize(call: Call, x: Value, scale: Value, zero: Value | None = None) -> Tensor:
    """(x − zero) · scale, by axis where the scale is a vector."""
    values, factors = as_tensor(x), as_tensor(scale)
    _check(call, values)
    shift = torch.zeros_like(factors) if zero is None else as_tensor(zero)
    difference = values.to(factors.dtype) - _along(call, shift.to(factors.dtype), values)
    return difference * _along(call, factors, values)


@operator("QuantizeLinear", limits=_LIMITS)
def quantize(call: Call, x: Value, scale: Value, zero: Value | None = None) -> Tensor:
    """x / scale + zero, rounded to whole numbers and kept within their range."""
    values, factors = as_tensor(x), as_tensor(scale)
    _check(call, values)
    shift = torch.zeros((), dtype=torch.uint8) if zero is None else as_tensor(zero)
    if shift.dtype not in _BOUNDS:
        raise call.unsupported(f"integers of the type {shift.dtype}")
    rounded = torch.round(values / _along(call, factors, values)) + _along(call, shift, values).to(
        values.dtype
    )
    return rounded.clamp(*_BOUNDS[shift.dtype]).to(shift.dtype)


def _check(call: Call, values: Tensor) -> None:
    call.expect("block_size", 0, default=0)
    if type(values) is not Tensor:  # one of a trace
        raise call.unsupported("activations are quantised; upload the model before quantisation")


def _along(call: Call, numbers: Tensor, values: Tensor) -> Tensor:
    """One number for every place of the axis, shaped to broadcast."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    shape = [1] * values.ndim
    shape[call.get("axis", 1)] = -1
    return numbers.reshape(shape)
