"""Shapes: what they are, and tensors laid out anew. On the host, shapes stay symbolic."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.formats.onnx_in.dtypes import to_dtype
from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.stored import first, loaded
from workers.engine.formats.onnx_in.values import (
    MOST_HOST,
    Host,
    Size,
    Value,
    as_tensor,
    bounded,
    host,
    ints,
    is_symbolic,
    kept,
    number,
    on_host,
)


@operator("Shape")
def shape(call: Call, x: Value) -> Host:
    """The lengths of the axes from `start` to `end`."""
    end = call.maybe("end")
    return host(list(x.shape)[call.get("start", 0) : end if isinstance(end, int) else None])


@operator("Size")
def size(_: Call, x: Value) -> Host:
    """The number of elements."""
    return host(math.prod(x.shape))


@operator("Constant", limits="without strings")
def constant(call: Call) -> Value:
    """A value written into the node."""
    stored = call.tensor("value")
    if stored is not None:
        return kept(loaded(stored))
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for suffix in ("", "s"):
            value: Any = call.maybe(name + suffix)
            if value is not None:
                return host(list(value) if suffix else value, dtype)
    raise call.unsupported("a constant that is no dense tensor of numbers")


@operator("Identity")
def identity(_: Call, x: Value) -> Value:
    """The value itself."""
    return x


@operator("Dropout")
def dropout(call: Call, x: Value, *_: Value) -> Value:
    """The value itself: the network is read for inference."""
    if call.wants > 1:
        raise call.unsupported("its output mask is read")
    return x


@operator("Cast")
def cast(call: Call, x: Value) -> Value:
    """In another type."""
    dtype = to_dtype(call.get("to", 1), call)
    return Host(_converted(x, dtype).array, dtype) if isinstance(x, Host) else x.to(dtype)


@operator("CastLike")
def cast_like(_: Call, x: Value, like: Value) -> Value:
    """In the type of another value."""
    return _converted(x, like.dtype) if isinstance(x, Host) else x.to(like.dtype)


def _converted(x: Host, dtype: torch.dtype) -> Host:
    return host([_as(item, dtype) for item in x.array.flat], dtype, x.shape)


def _as(item: Any, dtype: torch.dtype) -> Any:
    if not is_symbolic(item):
        return item
    if dtype.is_floating_point:
        return torch.sym_float(item)  # type: ignore[no-untyped-call]
    return math.trunc(item) if isinstance(item, torch.SymFloat) else item


@operator("Reshape")
def reshape(call: Call, x: Value, lengths: Value) -> Value:
    """With other lengths: −1 is what remains, 0 (unless `allowzero`) the length before."""
    wanted = ints(lengths, "shape of a Reshape")
    if not call.get("allowzero", 0):
        wanted = [
            x.shape[place] if not is_symbolic(length) and length == 0 else length
            for place, length in enumerate(wanted)
        ]
    return (
        Host(x.array.reshape([int(length) for length in wanted]), x.dtype)
        if isinstance(x, Host)
        else x.reshape(wanted)
    )


@operator("Flatten")
def flatten(call: Call, x: Value) -> Tensor:
    """As a matrix: the axes before `axis`, and the others."""
    values, axis = as_tensor(x), call.get("axis", 1)
    axis += values.ndim if axis < 0 else 0
    if axis == 1 and values.ndim > 1:
        return values.flatten(1)
    return values.reshape(math.prod(values.shape[:axis]), math.prod(values.shape[axis:]))


@operator("Transpose")
def transpose(call: Call, x: Value) -> Value:
    """The axes in another order."""
    order = list[int](call.get("perm", ())) or list(reversed(range(x.ndim)))
    return Host(x.array.transpose(order), x.dtype) if isinstance(x, Host) else x.permute(order)


@operator("Unsqueeze")
def unsqueeze(call: Call, x: Value, axes: Value | None = None) -> Value:
    """With axes of length 1 more."""
    places = _axes(call, axes)
    ndim = x.ndim + len(places)
    for place in sorted(place % ndim for place in places):
        x = Host(np.expand_dims(x.array, place), x.dtype) if isinstance(x, Host) else x.unsqueeze(place)
    return x


@operator("Squeeze")
def squeeze(call: Call, x: Value, axes: Value | None = None) -> Value:
    """Without axes of length 1: those named, or all."""
    places = _axes(call, axes) or [
        place for place, length in enumerate(x.shape) if not is_symbolic(length) and length == 1
    ]
    for place in sorted((place % x.ndim for place in places), reverse=True):
        x = Host(np.squeeze(x.array, place), x.dtype) if isinstance(x, Host) else x.squeeze(place)
    return x


def _axes(call: Call, axes: Value | None) -> list[int]:
    return ints(axes, "axes") if axes is not None else list[int](call.get("axes", ()))


@operator("Concat")
def concat(call: Call, *values: Value) -> Value:
    """One after the other along an axis."""
    axis = call.get("axis", 0)
    if on_host(*values):
        return Host(
            np.concatenate([each.array for each in values if isinstance(each, Host)], axis), values[0].dtype
        )
    return torch.cat([as_tensor(each) for each in values], axis)


@operator("Split", limits="lengths known from shapes")
def split(call: Call, x: Value, lengths: Value | None = None) -> tuple[Value, ...]:
    """In parts along an axis."""
    axis, count = call.get("axis", 0), len(call.node.outputs)
    wanted: list[Size] = ints(lengths, "lengths of a Split") or list[int](call.get("split", ()))
    if not wanted:
        part = -(-x.shape[axis] // count)
        wanted = [part] * (count - 1) + [x.shape[axis] - part * (count - 1)]
    if isinstance(x, Host):
        ends = np.cumsum(wanted)[:-1]
        return tuple(Host(part, x.dtype) for part in np.split(x.array, ends.astype(int), axis))
    return torch.split(x, wanted, axis)


@operator("Expand")
def expand(_: Call, x: Value, lengths: Value) -> Value:
    """Repeated along axes of length 1, after axes put before."""
    wanted = ints(lengths, "shape of an Expand")
    ndim = max(len(wanted), x.ndim)
    before = [1] * (ndim - x.ndim) + list(x.shape)
    wanted = [1] * (ndim - len(wanted)) + wanted
    final = [old if _is_one(new) else new for old, new in zip(before, wanted, strict=True)]
    if isinstance(x, Host) and _is_small(final):
        return Host(np.broadcast_to(x.array, final).copy(), x.dtype)
    return as_tensor(x).expand(bounded(final))


@operator("Tile")
def tile(_: Call, x: Value, repeats: Value) -> Value:
    """Repeated along every axis."""
    times = ints(repeats, "repeats of a Tile")
    if isinstance(x, Host) and _is_small([*times, *x.shape]):
        return Host(np.tile(x.array, times), x.dtype)
    values = as_tensor(x)
    bounded([*times, *values.shape])
    return values.repeat(times)


@operator("ConstantOfShape")
def constant_of_shape(call: Call, lengths: Value) -> Value:
    """One value everywhere."""
    wanted, stored = ints(lengths, "shape of a ConstantOfShape"), call.tensor("value")
    if stored is not None and math.prod(stored.shape) != 1:
        raise call.unsupported("a value that is not one number")
    value = 0.0 if stored is None else first(stored)
    dtype = torch.float32 if stored is None else getattr(torch, stored.dtype)
    if not dtype.is_floating_point and _is_small(wanted):
        return host([value] * math.prod(wanted), dtype, tuple(wanted))
    return torch.full(bounded(wanted), value, dtype=dtype)


@operator("Range", limits="bounds known from shapes")
def arange(_: Call, start: Value, limit: Value, delta: Value) -> Value:
    """Evenly spaced numbers."""
    begin, end, step = (number(each, "bounds of a Range") for each in (start, limit, delta))
    if not any(map(is_symbolic, (begin, end, step))):
        count = max(0, math.ceil((end - begin) / step))
        if count <= MOST_HOST and not start.dtype.is_floating_point:
            return host([begin + step * place for place in range(count)], start.dtype, (count,))
        bounded([count])
    return torch.arange(begin, end, step, dtype=start.dtype)


@operator("EyeLike")
def eye_like(call: Call, x: Value) -> Tensor:
    """Ones on a diagonal, in the shape of a matrix."""
    rows, columns = x.shape
    dtype = to_dtype(call.get("dtype", 1), call) if call.maybe("dtype") is not None else x.dtype
    places = torch.arange(rows).unsqueeze(1) + call.get("k", 0)
    return (torch.arange(columns) == places).to(dtype)


_PAD_MODES = {"reflect": "reflect", "edge": "replicate"}


@operator("Pad", limits="not wrapped; reflected or repeated on the last three axes at most")
def pad(
    call: Call, x: Value, pads: Value | None = None, value: Value | None = None, axes: Value | None = None
) -> Tensor:
    """Longer at both ends of axes, or shorter where negative."""
    values = as_tensor(x)
    mode = call.expect("mode", "constant", *_PAD_MODES, default="constant")
    amounts = ints(pads, "pads") if pads is not None else list[int](call.get("pads", ()))
    count = len(amounts) // 2
    places = [place % values.ndim for place in ints(axes, "axes")] if axes is not None else list(range(count))
    by_axis = {place: (amounts[at], amounts[at + count]) for at, place in enumerate(places)}
    flat: list[Size] = []
    for place in reversed(range(values.ndim)):
        flat += by_axis.get(place, (0, 0))
    while flat and not is_symbolic(flat[-1]) and not is_symbolic(flat[-2]) and flat[-2:] == [0, 0]:
        del flat[-2:]
    if mode == "constant":
        filling = number(value, "value of a Pad", call.get("value", 0.0))
        bounded([length + sum(by_axis.get(place, (0, 0))) for place, length in enumerate(values.shape)])
        return F.pad(values, flat, value=filling) if flat else values
    return _reflected(call, values, flat, _PAD_MODES[mode])


def _reflected(call: Call, x: Tensor, flat: list[Size], mode: str) -> Tensor:
    axes = max(1, len(flat) // 2)
    flat = flat or [0, 0]
    if axes > 3 or any(not is_symbolic(amount) and amount < 0 for amount in flat):
        raise call.unsupported(f"{axes} axes, or negative")
    # torch pads the last axes of tensors that have one or two more
    lead = x.shape[: x.ndim - axes]
    padded = F.pad(x.reshape(1, math.prod(lead), *x.shape[x.ndim - axes :]), flat, mode=mode)
    return padded.reshape(*lead, *padded.shape[2:])


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Value) -> Tensor:
    """Channels moved into blocks of pixels."""
    values, block = as_tensor(x), call.get("blocksize", 1)
    if call.expect("mode", "DCR", "CRD", default="DCR") == "CRD":
        return F.pixel_shuffle(values, block)
    batch, channels, height, width = values.shape
    split_up = values.reshape(batch, block, block, channels // block**2, height, width)
    return split_up.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Value) -> Tensor:
    """Blocks of pixels moved into channels."""
    values, block = as_tensor(x), call.get("blocksize", 1)
    batch, channels, height, width = values.shape
    split_up = values.reshape(batch, channels, height // block, block, width // block, block)
    return split_up.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // block, width // block)


def _is_one(length: Size) -> bool:
    return not is_symbolic(length) and length == 1


def _is_small(lengths: Sequence[Size]) -> bool:
    return not any(map(is_symbolic, lengths)) and math.prod(lengths) <= MOST_HOST
