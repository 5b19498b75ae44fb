"""Images and signals of another size."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Size, Value, as_tensor, bounded, ints, is_symbolic, numbers

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
_COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


_LIMITS = (
    "nearest, linear and cubic, without antialias, cropping or aspect ratios; "
    "fixed sizes where torch has no such interpolation"
)


@operator("Resize", limits=_LIMITS)
def resize(
    call: Call, x: Value, region: Value | None = None, scales: Value | None = None, sizes: Value | None = None
) -> Tensor:
    """Interpolated between the nearest pixels."""
    if call.opset < 11:  # then the scales were the second input
        return _upsampled(call, x, region)
    call.expect("antialias", 0, default=0)
    call.expect("exclude_outside", 0, default=0)
    call.expect("keep_aspect_ratio_policy", "stretch", default="stretch")
    values = as_tensor(x)
    lengths, factors = _wanted(
        call, values, numbers(scales, "scales of a Resize"), ints(sizes, "sizes of a Resize")
    )
    coordinates = call.expect("coordinate_transformation_mode", *_COORDINATES, default="half_pixel")
    rounding = call.expect("nearest_mode", *_ROUNDINGS, default="round_prefer_floor")
    return _resized(call, values, lengths, factors, (call.get("mode", "nearest"), coordinates, rounding))


@operator("Upsample", limits="nearest and linear")
def upsample(call: Call, x: Value, scales: Value | None = None) -> Tensor:
    """What Resize was before version 10."""
    return _upsampled(call, x, scales)


def _upsampled(call: Call, x: Value, scales: Value | None) -> Tensor:
    values = as_tensor(x)
    given = numbers(scales, "scales of an Upsample") or list[float](call.get("scales", ()))
    lengths, factors = _wanted(call, values, given, [])
    return _resized(call, values, lengths, factors, (call.get("mode", "nearest"), "asymmetric", "floor"))


def _wanted(
    call: Call, x: Tensor, scales: Sequence[float], sizes: Sequence[Size]
) -> tuple[dict[int, Size], dict[int, float | None]]:
    """By axis that changes: the new length, and the factor where it was given."""
    axes = list[int](call.get("axes", ())) or list(range(x.ndim))
    if sizes:
        given = dict(zip((axis % x.ndim for axis in axes), sizes, strict=True))
        changed = {axis: size for axis, size in given.items() if is_symbolic(size) or size != x.shape[axis]}
        return changed, dict.fromkeys(changed)
    factors: dict[int, Any] = dict(zip((axis % x.ndim for axis in axes), scales, strict=True))
    factors = {axis: factor for axis, factor in factors.items() if factor != 1}
    return {axis: _scaled(x.shape[axis], factor) for axis, factor in factors.items()}, factors


def _scaled(length: Size, factor: float) -> Size:
    return length * int(factor) if factor == int(factor) else math.floor(length * factor)


def _resized(
    call: Call,
    x: Tensor,
    lengths: dict[int, Size],
    factors: dict[int, float | None],
    kind: tuple[str, str, str],
) -> Tensor:
    """Interpolated: `kind` is the mode, the coordinates and the rounding."""
    if not lengths:
        return x
    mode, coordinates, rounding = kind
    bounded([lengths.get(axis, x.shape[axis]) for axis in range(x.ndim)])
    if x.ndim in _LINEAR and min(lengths) >= 2:
        known = _of_torch(x, lengths, factors, kind, call)
        if known is not None:
            return known
    if mode not in ("nearest", "linear") or any(
        is_symbolic(length) or is_symbolic(x.shape[axis]) for axis, length in lengths.items()
    ):
        raise call.unsupported(f"{mode} interpolation with {coordinates} coordinates of such axes")
    for axis, length in lengths.items():
        places = _places(x.shape[axis], length, factors[axis], coordinates)
        x = _nearest(x, axis, places, rounding) if mode == "nearest" else _between(x, axis, places)
    return x


def _of_torch(
    x: Tensor,
    lengths: dict[int, Size],
    factors: dict[int, float | None],
    kind: tuple[str, str, str],
    call: Call,
) -> Tensor | None:
    """The interpolation by a function of torch, or None where torch has none that does the same."""
    mode, coordinates, rounding = kind
    axes = range(2, x.ndim)
    given = [factors.get(axis, 1.0) for axis in axes]
    whole = all(factor is not None and factor == int(factor) for factor in given)
    keywords: dict[str, Any] = {"size": [lengths.get(axis, x.shape[axis]) for axis in axes]}
    if all(factor is not None for factor in given):
        keywords = {"scale_factor": [float(factor or 1) for factor in given]}
    if mode == "nearest":
        plain = coordinates == "asymmetric" and rounding == "floor"
        upwards = whole and (coordinates == "half_pixel" and rounding.startswith("round"))
        return F.interpolate(x, mode="nearest", **keywords) if plain or upwards else None
    corners = coordinates == "align_corners"
    if corners and "scale_factor" in keywords:
        keywords = {"size": [lengths.get(axis, x.shape[axis]) for axis in axes]}
    if not (corners or coordinates.endswith("half_pixel")):
        return None
    if mode == "linear" and set(lengths) <= set(axes):
        return F.interpolate(x, mode=_LINEAR[x.ndim], align_corners=corners, **keywords)
    if mode == "cubic" and x.ndim == 4 and call.get("cubic_coeff_a", -0.75) == -0.75:
        return F.interpolate(x, mode="bicubic", align_corners=corners, **keywords)
    return None


def _places(length: int, wanted: int, factor: float | None, coordinates: str) -> list[float]:
    """Where each new element lies on the old axis."""
    scale = wanted / length if factor is None else factor
    if coordinates == "asymmetric":
        return [place / scale for place in range(wanted)]
    if coordinates == "align_corners":
        return [place * (length - 1) / (wanted - 1) if wanted > 1 else 0.0 for place in range(wanted)]
    if coordinates == "pytorch_half_pixel" and wanted == 1:
        return [0.0]
    return [(place + 0.5) / scale - 0.5 for place in range(wanted)]


def _nearest(x: Tensor, axis: int, places: Sequence[float], rounding: str) -> Tensor:
    round_ = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda place: math.ceil(place - 0.5),
        "round_prefer_ceil": lambda place: math.floor(place + 0.5),
    }[rounding]
    return _picked(x, axis, [round_(place) for place in places])


def _between(x: Tensor, axis: int, places: Sequence[float]) -> Tensor:
    low = [math.floor(place) for place in places]
    shape = [1] * x.ndim
    shape[axis] = -1
    share = torch.tensor([place - below for place, below in zip(places, low, strict=True)], dtype=x.dtype)
    below, above = _picked(x, axis, low), _picked(x, axis, [place + 1 for place in low])
    return below + (above - below) * share.reshape(shape)


def _picked(x: Tensor, axis: int, places: Sequence[int]) -> Tensor:
    last = x.shape[axis] - 1
    return torch.index_select(x, axis, torch.tensor([min(max(place, 0), last) for place in places]))
