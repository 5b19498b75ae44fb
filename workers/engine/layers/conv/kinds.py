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


class PointwiseConvLayer(ConvLayer):
    """A convolution whose kernel is 1×1: a matrix at every pixel."""

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """An SVD."""
        return (PointwiseSvdFactorization(self),)


class KernelConvLayer(ConvLayer):
    """A convolution whose kernel has several taps."""

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
