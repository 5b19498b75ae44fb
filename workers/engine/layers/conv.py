"""Convolutions with a k×k kernel: 1×1, k×k core, 1×1 and their kin, all made of ordinary convolutions."""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.tucker import hosvd, tucker2
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Factors, Layer, Rewritten, Site
from workers.engine.layers.matrix import PLAIN_CONVOLUTION, channels_last

# Below 32 channels the three calls cost what the arithmetic saves (measured on a CPU: 0.85–1.04 × at 16).
_WORTHWHILE_CHANNELS = 32


class KernelConvLayer(Layer):
    """An ungrouped convolution of C_in into C_out channels, stride, padding and dilation of any size."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        """conv1d, conv2d or conv3d."""
        return f"conv{self.site.W.dim() - 2}d"

    @property
    def macs(self) -> int:
        """Output pixels × kernel."""
        return self.output_pixels * self.site.W.numel()

    @property
    def worthwhile(self) -> bool:
        """Whether the layer is wide enough for three calls to beat one."""
        return min(self.site.W.shape[:2]) >= _WORTHWHILE_CHANNELS

    @property
    def input_pixels(self) -> int:
        """Pixels that come in, all calls together."""
        return sum(prod(site.input_shape[2:]) for site in self.sites)

    @property
    def output_pixels(self) -> int:
        """Pixels that go out, all calls together."""
        return sum(prod(site.output_shape[2:]) for site in self.sites)

    @property
    def observed(self) -> int:
        """Channels: patches as a whole would be k² times as long."""
        return self.site.W.shape[1]

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The channels of every input pixel."""
        return channels_last(arguments["input"])

    def gradients(self, gradient: Tensor) -> Tensor:
        """The channels of every output pixel."""
        return channels_last(gradient)

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """A kernel takes a Tucker-2 decomposition."""
        return (TuckerFactorization(self),)


class TuckerFactorization(Factorization[KernelConvLayer]):
    """Tucker-2: 1×1 (C_in → r_in), k×k core (r_in → r_out), 1×1 (r_out → C_out)."""

    method = "tucker"

    @property
    def max_rank(self) -> tuple[int, ...]:
        """(C_out, C_in)."""
        return tuple(self.layer.site.W.shape[:2])

    @cached_property
    def _errors(self) -> list[list[float]]:
        found = hosvd(self.layer.site.W)
        errors: list[list[float]] = found.relative_errors().tolist()
        return errors

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """r_in C_in at every input pixel; the core and C_out r_out at every output pixel."""
        layer, (rank_out, rank_in) = self.layer, rank
        channels_out, channels_in = layer.site.W.shape[:2]
        first, last = rank_in * channels_in, channels_out * rank_out
        core = rank_out * rank_in * layer.site.W[0, 0].numel()
        return first + core + last, layer.input_pixels * first + layer.output_pixels * (core + last)

    def error(self, rank: tuple[int, ...]) -> float:
        """The discarded energy of the higher-order spectrum."""
        return self._errors[rank[0] - 1][rank[1] - 1]

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Three calls instead of one; the core keeps stride, padding and dilation, the last call the bias."""
        layer, weighting, ones = self.layer, self.layer.weigh(), (1,) * (self.layer.site.W.dim() - 2)
        core, factor_out, factor_in = tucker2(layer.site.W, (rank[0], rank[1]))
        rebuilt = torch.einsum("ab...,oa,ib->oi...", core, factor_out, factor_in)
        factors = {
            "factor_in": factor_in.T.reshape(*factor_in.T.shape, *ones),
            "core": core,
            "factor_out": factor_out.reshape(*factor_out.shape, *ones),
        }
        layer.replace(factors, self._insert)
        return Rewritten(rebuilt, weighting.warnings)

    def _insert(self, site: Site, factors: Factors) -> Node:
        plain = PLAIN_CONVOLUTION[self.layer.site.W.dim() - 2]
        inner = surgery.call(site.module, plain, site.arguments["input"], factors["factor_in"])
        inner = surgery.recall(site.module, site.node, input=inner, weight=factors["core"], bias=None)
        return surgery.call(site.module, plain, inner, factors["factor_out"], site.bias)
