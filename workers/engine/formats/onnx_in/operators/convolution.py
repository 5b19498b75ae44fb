"""Convolutions and pooling over one to three axes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Size, Value, as_tensor, is_symbolic, larger, smaller

_CONV = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@operator("Conv", limits="one to three axes")
def conv(call: Call, x: Value, weight: Value, bias: Value | None = None) -> Tensor:
    """A convolution; padding that is not the same at both ends becomes a call of its own."""
    values, kernel = as_tensor(x), as_tensor(weight)
    axes = _axes(call, kernel)
    strides, dilations = _each(call, "strides", axes), _each(call, "dilations", axes)
    begin, end = _padding(call, values, list(kernel.shape[2:]), strides, dilations)
    if begin != end:
        values, begin = _padded(values, begin, end), [0] * axes
    offset = None if bias is None else as_tensor(bias)
    return _CONV[axes](values, kernel, offset, strides, begin, dilations, call.get("group", 1))


@operator("ConvTranspose", limits="one to three axes")
def conv_transpose(call: Call, x: Value, weight: Value, bias: Value | None = None) -> Tensor:
    """The transpose of a convolution; what is cut off unevenly is cut off afterwards."""
    values, kernel = as_tensor(x), as_tensor(weight)
    axes = _axes(call, kernel)
    strides, dilations = _each(call, "strides", axes), _each(call, "dilations", axes)
    more = _each(call, "output_padding", axes, 0)
    begin, end = _cut(call, values, list(kernel.shape[2:]), strides, dilations, more)
    even = begin == end and all(not is_symbolic(cut) and cut >= 0 for cut in begin)
    offset = None if bias is None else as_tensor(bias)
    padding = begin if even else [0] * axes
    groups = call.get("group", 1)
    result = _TRANSPOSED[axes](values, kernel, offset, strides, padding, more, groups, dilations)
    return result if even else _padded(result, [-cut for cut in begin], [-cut for cut in end])


@operator("MaxPool", limits="without the output Indices")
def max_pool(call: Call, x: Value) -> Tensor:
    """The largest value of each window."""
    if call.wants > 1:
        raise call.unsupported("its output Indices is read")
    values = as_tensor(x)
    kernel, strides, dilations = _window(call)
    begin, end = _padding(call, values, kernel, strides, dilations)
    ceil, pool = bool(call.get("ceil_mode", 0)), _MAX_POOL[len(kernel)]
    if _fits(begin, end, kernel):
        return pool(values, kernel, strides, begin, dilations, ceil)
    padded = pool(_padded(values, begin, end, float("-inf")), kernel, strides, 0, dilations, ceil)
    return _without_padding_alone(padded, values, strides, begin)


@operator("AveragePool", limits="without dilations")
def average_pool(call: Call, x: Value) -> Tensor:
    """The mean of each window, padding counted or not."""
    values = as_tensor(x)
    kernel, strides, dilations = _window(call)
    if any(dilation != 1 for dilation in dilations):
        raise call.unsupported("dilations")
    begin, end = _padding(call, values, kernel, strides, dilations)
    ceil, counted = bool(call.get("ceil_mode", 0)), bool(call.get("count_include_pad", 0))
    pool = _AVERAGE_POOL[len(kernel)]
    if _fits(begin, end, kernel):
        return pool(values, kernel, strides, begin, ceil, counted)
    padded = _without_padding_alone(
        pool(_padded(values, begin, end), kernel, strides, 0, ceil), values, strides, begin
    )
    if counted:
        return padded
    share = pool(_padded(torch.ones_like(values), begin, end), kernel, strides, 0, ceil)
    return padded / _without_padding_alone(share, values, strides, begin)


@operator("GlobalAveragePool")
def global_average_pool(_: Call, x: Value) -> Tensor:
    """The mean over all axes after the second."""
    values = as_tensor(x)
    return values.mean(list(range(2, values.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Call, x: Value) -> Tensor:
    """The largest value over all axes after the second."""
    values = as_tensor(x)
    return values.amax(list(range(2, values.ndim)), keepdim=True)


def _axes(call: Call, kernel: Tensor) -> int:
    axes = kernel.ndim - 2
    if axes not in _CONV:
        raise call.unsupported(f"{axes} axes")
    return axes


def _each(call: Call, name: str, axes: int, default: int = 1) -> list[int]:
    """A number for each axis."""
    values: tuple[int, ...] = call.get(name, ())
    return list(values) or [default] * axes


def _window(call: Call) -> tuple[list[int], list[int], list[int]]:
    kernel = list[int](call.get("kernel_shape", ()))
    if len(kernel) not in _CONV:
        raise call.unsupported(f"{len(kernel)} axes")
    return kernel, _each(call, "strides", len(kernel)), _each(call, "dilations", len(kernel))


def _padding(
    call: Call, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[Size], list[Size]]:
    """How much is padded before and after each axis."""
    mode = call.expect("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "", default="NOTSET")
    if mode in ("NOTSET", ""):
        return _given(call, len(kernel))
    if mode == "VALID":
        return [0] * len(kernel), [0] * len(kernel)
    reach = [dilation * (size - 1) + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pairs = zip(x.shape[2:], strides, reach, strict=True)
    return _halves([_same(length, stride, size) for length, stride, size in pairs], mode)


def _same(length: Size, stride: int, reach: int) -> Size:
    """The padding that gives ceil(length / stride) outputs."""
    if stride == 1:
        return reach - 1
    return larger(0, ((length + stride - 1) // stride - 1) * stride + reach - length)


def _given(call: Call, axes: int) -> tuple[list[Size], list[Size]]:
    pads = _each(call, "pads", 2 * axes, 0)
    return pads[:axes], pads[axes:]


def _halves(totals: Sequence[Size], mode: str) -> tuple[list[Size], list[Size]]:
    """What is odd goes to the end of each axis, or to its begin where the mode is not SAME_UPPER."""
    less = [total // 2 for total in totals]
    more = [total - half for total, half in zip(totals, less, strict=True)]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _cut(
    call: Call,
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    more: Sequence[int],
) -> tuple[list[Size], list[Size]]:
    """What a transposed convolution leaves out at both ends of each axis."""
    mode = call.expect("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "", default="NOTSET")
    lengths: tuple[int, ...] = call.get("output_shape", ())
    if not lengths and not mode.startswith("SAME"):
        return _given(call, len(kernel)) if mode != "VALID" else ([0] * len(kernel), [0] * len(kernel))
    wanted = list(lengths)[-len(kernel) :] or [
        length * stride for length, stride in zip(x.shape[2:], strides, strict=True)
    ]
    whole = [
        (length - 1) * stride + extra + dilation * (size - 1) + 1
        for length, stride, extra, dilation, size in zip(
            x.shape[2:], strides, more, dilations, kernel, strict=True
        )
    ]
    return _halves([total - out for total, out in zip(whole, wanted, strict=True)], mode)


def _fits(begin: Sequence[Size], end: Sequence[Size], kernel: Sequence[int]) -> bool:
    """Whether torch's own pooling can pad so: evenly, by half a window at most."""
    return begin == end and all(
        not is_symbolic(pad) and 2 * pad <= size for pad, size in zip(begin, kernel, strict=True)
    )


def _without_padding_alone(
    pooled: Tensor, x: Tensor, strides: Sequence[int], begin: Sequence[Size]
) -> Tensor:
    """Without windows that begin after the last element, which rounding up may have added."""
    for axis, (stride, before) in enumerate(zip(strides, begin, strict=True), 2):
        last = (x.shape[axis] + before - 1) // stride + 1
        pooled = pooled.narrow(axis, 0, smaller(pooled.shape[axis], last))
    return pooled


def _padded(x: Tensor, begin: Sequence[Size], end: Sequence[Size], value: float = 0.0) -> Tensor:
    """Padded where positive, cut where negative."""
    pads = [pad for axis in reversed(range(len(begin))) for pad in (begin[axis], end[axis])]
    return F.pad(x, pads, value=value)
