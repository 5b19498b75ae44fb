"""Elements picked out of tensors, and put into them."""

import numpy as np
import torch
from torch import Tensor

from workers.engine.errors import Rejected
from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import (
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
    numbers,
    on_host,
)

_END = 1 << 27  # bounds beyond it mean the end of an axis: no tensor is as long


@operator("Gather", limits="indices from data are not negative")
def gather(call: Call, x: Value, indices: Value) -> Value:
    """Slices of one axis, by whole numbers of any shape."""
    axis = call.get("axis", 0) % max(x.ndim, 1)
    if isinstance(x, Host) and isinstance(indices, Host):
        return Host(np.asarray(np.take(x.array, indices.array.astype(np.int64), axis), dtype=object), x.dtype)
    values = as_tensor(x)
    if isinstance(indices, Host):
        length = values.shape[axis]
        if indices.ndim == 0:
            return values.select(axis, indices.array.item())
        items = [item + length if not is_symbolic(item) and item < 0 else item for item in indices.array.flat]
        indices = host(items, indices.dtype, indices.shape)
    places = as_tensor(indices)
    picked = torch.index_select(values, axis, places.reshape(-1))
    if places.ndim == 1:
        return picked
    return picked.reshape(*values.shape[:axis], *places.shape, *values.shape[axis + 1 :])


@operator("GatherElements", limits="indices from data are not negative")
def gather_elements(call: Call, x: Value, indices: Value) -> Tensor:
    """One element of an axis for each index."""
    values, axis = as_tensor(x), call.get("axis", 0)
    return torch.gather(values, axis, _from_the_front(indices, values.shape[axis]))


@operator("GatherND", limits="without batch_dims")
def gather_nd(call: Call, x: Value, indices: Value) -> Tensor:
    """Slices by tuples of indices."""
    call.expect("batch_dims", 0, default=0)
    return as_tensor(x)[tuple(as_tensor(indices).long().unbind(-1))]


@operator("ScatterElements", "Scatter", limits="indices from data are not negative")
def scatter_elements(call: Call, x: Value, indices: Value, updates: Value) -> Tensor:
    """Elements put in the places of an axis, or combined with what is there."""
    values, axis, new = as_tensor(x), call.get("axis", 0), as_tensor(updates)
    places = _from_the_front(indices, values.shape[axis])
    reduction = call.expect("reduction", "none", "add", "mul", "max", "min", default="none")
    if reduction == "none":
        return values.scatter(axis, places, new)
    kinds = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return values.scatter_reduce(axis, places, new, kinds[reduction])


@operator("ScatterND", limits="reduction none or add")
def scatter_nd(call: Call, x: Value, indices: Value, updates: Value) -> Tensor:
    """Slices put in the places that tuples of indices name."""
    reduction = call.expect("reduction", "none", "add", default="none")
    places = tuple(as_tensor(indices).long().unbind(-1))
    return torch.index_put(as_tensor(x), places, as_tensor(updates), accumulate=reduction == "add")


@operator("Slice", limits="bounds known from shapes; backwards over fixed or whole axes")
def cut(call: Call, x: Value, *bounds: Value | None) -> Value:
    """A range of each axis."""
    if bounds:
        given: list[list[Size]] = [ints(each, "bounds of a Slice") for each in bounds]
    else:
        given = [list[int](call.get(name, ())) for name in ("starts", "ends", "axes")]
    starts, ends, axes, steps = [*given, [], []][:4]
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = (
            _on_host(x, start, end, axis, step)
            if isinstance(x, Host)
            else _sliced(call, x, start, end, axis, step)
        )
    return x


def _places(length: int, start: int, end: int, step: int) -> range:
    """The places of a slice: unlike Python's, bounds are moved onto the axis before they are compared."""
    begin, last = (bound + length if bound < 0 else bound for bound in (int(start), int(end)))
    if step > 0:
        return range(min(max(begin, 0), length), min(max(last, 0), length), step)
    return range(min(max(begin, 0), length - 1), min(max(last, -1), length - 1), step)


def _on_host(x: Host, start: Size, end: Size, axis: int, step: int) -> Host:
    places = _places(x.shape[axis], start, end, step)
    return Host(np.take(x.array, np.array(places, dtype=np.int64), axis), x.dtype)


def _sliced(call: Call, x: Tensor, start: Size, end: Size, axis: int, step: int) -> Tensor:
    if step > 0:
        last = end if is_symbolic(end) or abs(end) < _END - 1 else (1 << 63) - 1
        result: Tensor = torch.ops.aten.slice.Tensor(x, axis, start, last, step)
        return result
    length = x.shape[axis]
    if (
        step == -1
        and not any(map(is_symbolic, (start, end)))
        and (start == -1 or start >= _END - 1)
        and end <= 1 - _END
    ):
        return x.flip([axis])
    if any(map(is_symbolic, (length, start, end))):
        raise call.unsupported("a part of a variable axis, backwards")
    places = _places(length, start, end, step)
    return torch.index_select(x, axis, torch.arange(places.start, places.start + len(places) * step, step))


@operator("NonZero", limits="of constants")
def non_zero(_: Call, x: Value) -> Value:
    """The places of what is not zero, by axis."""
    if isinstance(x, Host) and not any(map(is_symbolic, x.array.flat)):
        return kept(torch.from_numpy(np.stack(np.nonzero(x.array.astype(bool))).astype(np.int64)))
    if type(x) is Tensor:  # not one of a trace
        return kept(torch.stack(torch.nonzero(x, as_tuple=True)))
    raise Rejected(
        "data_dependent",
        "The model uses NonZero on data: the shape of what it computes is not known beforehand.",
        hint="Replace the selection by a mask, and export again.",
    )


@operator("OneHot", limits="depth known from shapes")
def one_hot(call: Call, indices: Value, depth: Value, values: Value) -> Tensor:
    """One value at each index, another elsewhere."""
    (length,) = bounded([int(number(depth, "depth of a OneHot"))])
    off, on = numbers(values, "values of a OneHot")
    places = as_tensor(indices).long()
    axis = call.get("axis", -1) % (places.ndim + 1)
    classes = torch.arange(length).reshape([-1] + [1] * (places.ndim - axis))
    hot = places.remainder(length).unsqueeze(axis) == classes
    return torch.where(hot, torch.full((), on, dtype=values.dtype), torch.full((), off, dtype=values.dtype))


@operator("Trilu")
def trilu(call: Call, x: Value, k: Value | None = None) -> Tensor:
    """The upper or lower triangle of matrices."""
    diagonal = int(number(k, "diagonal of a Trilu", 0))
    triangle = torch.triu if call.get("upper", 1) else torch.tril
    return triangle(as_tensor(x), diagonal)


@operator("CumSum")
def cumulative_sum(call: Call, x: Value, axis: Value) -> Tensor:
    """Sums up to each place, from either end, with or without the place itself."""
    values, dim = as_tensor(x), int(number(axis, "axis of a CumSum"))
    ordered = values.flip([dim]) if call.get("reverse", 0) else values
    summed = ordered.cumsum(dim, dtype=values.dtype)
    summed = summed - ordered if call.get("exclusive", 0) else summed
    return summed.flip([dim]) if call.get("reverse", 0) else summed


@operator("TopK", limits="k known from shapes")
def top_k(call: Call, x: Value, k: Value | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest values of an axis, and their places."""
    count = int(number(k, "k of a TopK", call.get("k", 1)))
    found = torch.topk(as_tensor(x), count, call.get("axis", -1), bool(call.get("largest", 1)))
    return found.values, found.indices


@operator("ReverseSequence")
def reverse_sequence(call: Call, x: Value, lengths: Value) -> Tensor:
    """Every example's sequence backwards, up to its own length."""
    values, times = as_tensor(x), as_tensor(lengths).long()
    time, batch = call.get("time_axis", 0), call.get("batch_axis", 1)
    steps = torch.arange(values.shape[time])
    places = torch.where(steps < times.unsqueeze(1), times.unsqueeze(1) - 1 - steps, steps)
    shape = [1] * values.ndim
    shape[time], shape[batch] = values.shape[time], values.shape[batch]
    ordered = places if batch < time else places.t()
    return torch.gather(values, time, ordered.reshape(shape).expand(values.shape))


def _from_the_front(indices: Value, length: Size) -> Tensor:
    """Indices that count from the front, where they are known."""
    if on_host(indices) and isinstance(indices, Host) and not is_symbolic(length):
        return as_tensor(
            host([int(item) % length for item in indices.array.flat], torch.int64, indices.shape)
        )
    return as_tensor(indices).long()
