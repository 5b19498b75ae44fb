"""What all convolutions share, ordinary or transposed, in any number of groups: geometry, cost, calls."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.graph import surgery
from workers.engine.layers.base import Layer, Site
from workers.engine.layers.conv.patches import Window, channels_last, patches

aten = torch.ops.aten
_PLAIN = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
CONVOLUTIONS = frozenset(
    {
        aten.conv1d.default,
        aten.conv2d.default,
        aten.conv3d.default,
        aten.conv1d.padding,
        aten.conv2d.padding,
        aten.conv3d.padding,
    }
)
TRANSPOSED = frozenset(
    {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
)

# A patch moment this wide takes 42 MB and half a second to root; beyond it, channels alone are seen.
_PATCH = 2304


class ConvLayer(Layer):
    """A convolution of C_in into C_out channels. Its calls agree in direction and groups, not in stride.

    Groups share one weighting: their inputs and gradients are pooled, as if every group were a position.
    """

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Of `kernels`."""
        return tuple(self.kernels.shape)

    @property
    def kernel(self) -> tuple[int, ...]:
        """The kernel's size k."""
        return self.shape[3:]

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """The kernel's axes, counted from 0."""
        return tuple(range(len(self.kernel)))

    @property
    def transposed(self) -> bool:
        """Whether the convolution is transposed: its weight is then (C_in, C_out / groups, *k)."""
        return self.site.node.target in TRANSPOSED

    @property
    def kind(self) -> str:  # type: ignore[override]
        """conv1d … conv3d, conv_transpose1d … conv_transpose3d."""
        return f"conv{'_transpose' if self.transposed else ''}{len(self.axes)}d"

    @property
    def groups(self) -> int:
        """Groups of channels that meet only each other."""
        return int(self.site.arguments["groups"])

    @property
    def kernels(self) -> Tensor:
        """Every group's kernel, whatever the weight's layout: (groups, C_out / groups, C_in / groups, *k)."""
        W = self.site.W
        grouped = W.reshape(self.groups, -1, *W.shape[1:])
        return grouped.transpose(1, 2) if self.transposed else grouped

    @property
    def matrix(self) -> Tensor:
        """The groups' kernels side by side: (C_out / groups, C_in / groups · ∏k · groups)."""
        return side_by_side(self.kernels)

    def stored(self, kernels: Iterable[Tensor], axes: Collection[int]) -> Tensor:
        """The weight of a call that moves along `axes`, from every group's kernel (outputs, inputs, *k)."""
        turned = self.transposed and bool(axes)
        return torch.cat([kernel.transpose(0, 1) if turned else kernel for kernel in kernels])

    def unstored(self, weight: Tensor, axes: Collection[int]) -> list[Tensor]:
        """Every group's kernel (outputs, inputs, *k) from what `stored` made of them."""
        turned = self.transposed and bool(axes)
        return [kernel.transpose(0, 1) if turned else kernel for kernel in weight.chunk(self.groups)]

    @property
    def macs(self) -> int:
        """A pixel that goes out, or comes in where transposed, meets the whole weight."""
        return self.pixels(self.axes) * self.site.W.numel()

    def pixels(self, taken: Collection[int], *, before: Collection[int] = ()) -> int:
        """How many pixels of all calls meet the weight of a convolution that moves along the axes `taken`,
        after others have moved along those `before`."""
        out = before if self.transposed else {*before, *taken}
        return sum(
            prod(
                site.output_shape[axis - len(self.axes)]
                if axis in out
                else site.input_shape[axis - len(self.axes)]
                for axis in self.axes
            )
            for site in self.sites
        )

    def call(
        self, site: Site, x: Node, weight: Node, *, axes: Collection[int], groups: int, bias: Node | None
    ) -> Node:
        """Insert a convolution that moves along `axes` as the call does, with their stride, padding and
        dilation. Without axes it is an ordinary 1×1."""
        count = len(self.axes)
        if not axes:
            still = ([1] * count, [0] * count, [1] * count)
            return surgery.call(site.module, _PLAIN[count], x, weight, bias, *still, groups)
        moved = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
        values = {
            name: value
            if isinstance(value, str)
            else [each if axis in axes else still for axis, each in enumerate(_spread(value, count))]
            for name, still in moved.items()
            if (value := site.arguments.get(name)) is not None
        }
        return surgery.recall(
            site.module, site.node, input=x, weight=weight, bias=bias, groups=groups, **values
        )

    @property
    def _sees_patches(self) -> bool:
        """Whether whole patches are observed. Transposed, every pixel has others."""
        return not self.transposed and prod(self.shape[2:]) <= _PATCH

    @property
    def observed(self) -> int:
        """Of a group: patches C_in · ∏k where they are not too wide, else channels C_in."""
        return prod(self.shape[2:]) if self._sees_patches else self.shape[2]

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """Patches of the input, or its pixels' channels; one vector for each group."""
        x: Tensor = arguments["input"]
        seen = patches(x, self._window(arguments)) if self._sees_patches else channels_last(x, len(self.axes))
        return seen.reshape(-1, self.observed)

    def gradients(self, gradient: Tensor) -> Tensor:
        """The channels of every output pixel, one vector for each group."""
        return channels_last(gradient, len(self.axes)).reshape(-1, self.shape[1])

    @property
    def takes_mean(self) -> bool:
        """Pooled groups and channels alone do not say what is missing: only whole patches do."""
        return super().takes_mean and self.groups == 1 and self._sees_patches

    def _window(self, arguments: Mapping[str, Any]) -> Window:
        count = len(self.axes)
        dilation = _spread(arguments["dilation"], count)
        if arguments["padding"] == "same":
            whole = [spread * (size - 1) for spread, size in zip(dilation, self.kernel, strict=True)]
            padding = [(total // 2, total - total // 2) for total in whole]
        else:
            given = [0] if arguments["padding"] == "valid" else arguments["padding"]
            padding = [(amount, amount) for amount in _spread(given, count)]
        return Window(self.kernel, _spread(arguments["stride"], count), tuple(padding), dilation)


def side_by_side(kernels: Tensor) -> Tensor:
    """Kernels (groups, outputs, inputs, *k) as one matrix (outputs, inputs · ∏k · groups), which a weighting
    over channels or patches applies to."""
    return kernels.movedim(0, -1).flatten(1)


def _spread(values: Sequence[int], count: int) -> tuple[int, ...]:
    """One value for each axis, where a single one stands for all."""
    return tuple(values) if len(values) == count else tuple(values) * count
