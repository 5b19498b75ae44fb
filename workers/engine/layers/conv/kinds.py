"""The kinds of convolution, and what each may become."""

from typing import Any

from workers.engine.layers.base import Factorization
from workers.engine.layers.conv.cp import CpFactorization
from workers.engine.layers.conv.layer import ConvLayer
from workers.engine.layers.conv.split import (
    ChannelSvdFactorization,
    ChannelSvdInFactorization,
    PointwiseSvdFactorization,
    SpatialSvdFactorization,
)
from workers.engine.layers.conv.tucker import FullTuckerFactorization, TuckerFactorization

# Below 32 channels the three calls cost what the arithmetic saves (measured on a CPU: 0.85–1.04 × at 16).
_WORTHWHILE_CHANNELS = 32


class PointwiseConvLayer(ConvLayer):
    """A convolution whose kernel is 1×1: a matrix at every pixel."""

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """An SVD."""
        return (PointwiseSvdFactorization(self),)


class KernelConvLayer(ConvLayer):
    """A convolution whose kernel has several taps."""

    @property
    def worthwhile(self) -> bool:
        """Whether the layer is wide enough for three calls to beat one."""
        return min(self.shape[1:3]) >= _WORTHWHILE_CHANNELS

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """By channels always, by axes where there are two; on every mode if it is ordinary and one group."""
        found: list[Factorization[Any]] = [
            TuckerFactorization(self),
            ChannelSvdFactorization(self),
            ChannelSvdInFactorization(self),
        ]
        if len(self.axes) == 2 and min(self.kernel) > 1:
            found.append(SpatialSvdFactorization(self))
        if self.groups == 1 and not self.transposed:
            found += [CpFactorization(self), FullTuckerFactorization(self)]
        return tuple(found)
