"""What a convolution multiplies at one output pixel: a patch of its input, channels × kernel."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from workers.engine.decomposition.whitening import Root, root

POSITIONS = 1024
"""How many patches of one call are looked at: all of them would be ∏k times as large as the input."""


@dataclass(frozen=True)
class Window:
    """A kernel's size and how it moves, one number for each axis; `padding` is (before, after) of each."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


def patches(x: Tensor, window: Window) -> Tensor:
    """The patches (positions, C, *k) of a feature map (…, C, *pixels), with the zeros of its padding; where
    there are more than `POSITIONS`, so many drawn at random."""
    axes = len(window.size)
    x = pad(x, [amount for pair in reversed(window.padding) for amount in pair])
    x = x.reshape(-1, *x.shape[-axes - 1 :])
    for axis, (size, step, spread) in enumerate(
        zip(window.size, window.stride, window.dilation, strict=True), start=2
    ):
        x = x.unfold(axis, spread * (size - 1) + 1, step)[..., ::spread]
    x = x.movedim(1, axes + 1)
    places = x.shape[: axes + 1]
    if prod(places) <= POSITIONS:
        return x.flatten(0, axes)
    drawn = torch.randperm(prod(places), generator=torch.Generator().manual_seed(0))[:POSITIONS]
    return x[torch.unravel_index(drawn.to(x.device), places)]


def channels_last(x: Tensor, axes: int) -> Tensor:
    """The pixels (positions, C) of a feature map (…, C, *pixels) of so many axes."""
    return x.movedim(-axes - 1, -1).flatten(0, -2)


def marginal(right: Root, kernel: Sequence[int], axes: Collection[int]) -> Root:
    """The root of a patch moment's mean over the other axes' taps: of patches (C, *k of `axes`) alone.

    Args:
        right: over patches (C, *k).
        kernel: k.
        axes: which of the kernel's axes stay.
    """
    if len(axes) == len(kernel):
        return right
    L = right.L.reshape(-1, *kernel, len(right.L))
    others = [1 + axis for axis in range(len(kernel)) if axis not in axes]
    L = L.movedim(others, list(range(len(others)))).flatten(0, len(others) - 1).flatten(1, -2)
    return root(torch.stack([tap @ tap.T for tap in L]).mean(0))
