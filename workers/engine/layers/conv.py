"""Convolutions with a k×k kernel. They take a Tucker-2 decomposition: 1×1, k×k core, 1×1."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.tucker import hosvd, tucker2
from workers.engine.graph import surgery
from workers.engine.layers.base import Form, Layer, relative_error
from workers.engine.layers.matrix import PLAIN_CONVOLUTION

# Below 32 channels the three calls cost what the arithmetic saves (measured on a CPU: 0.85–1.04 × at 16).
_WORTHWHILE_CHANNELS = 32


class KernelConvLayer(Layer):
    """An ungrouped convolution of C_in into C_out channels, stride, padding and dilation of any size."""

    method = "tucker"

    @property
    def kind(self) -> str:  # type: ignore[override]
        """conv1d, conv2d or conv3d."""
        return f"conv{self.site.W.dim() - 2}d"

    @property
    def macs(self) -> int:
        """Output pixels × kernel."""
        return self._output_pixels * self.site.W.numel()

    @property
    def worthwhile(self) -> bool:
        """Whether the layer is wide enough for three calls to beat one."""
        return min(self.site.W.shape[:2]) >= _WORTHWHILE_CHANNELS

    @property
    def max_rank(self) -> tuple[int, ...]:
        """(C_out, C_in)."""
        return () if self.reason else tuple(self.site.W.shape[:2])

    @property
    def _input_pixels(self) -> int:
        return torch.Size(self.site.input_shape[2:]).numel()

    @property
    def _output_pixels(self) -> int:
        return torch.Size(self.site.output_shape[2:]).numel()

    @cached_property
    def _errors(self) -> list[list[float]]:
        errors: list[list[float]] = hosvd(self.site.W).relative_errors().tolist()
        return errors

    def form(self, rank: tuple[int, ...]) -> Form:
        """r_in C_in at every input pixel; the core and C_out r_out at every output pixel."""
        channels_out, channels_in = self.site.W.shape[:2]
        rank_out, rank_in = rank
        first, last = rank_in * channels_in, channels_out * rank_out
        core = rank_out * rank_in * self.site.W[0, 0].numel()
        return Form(
            method="tucker",
            rank=rank,
            parameters=first + core + last + self.site.bias_parameters,
            macs=self._input_pixels * first + self._output_pixels * (core + last),
            error=self._errors[rank_out - 1][rank_in - 1],
        )

    def forms(self, step: int) -> Iterator[Form]:
        """All pairs of ranks on the grid; the caller drops the dominated ones."""
        if self.reason is None:
            channels_out, channels_in = self.site.W.shape[:2]
            for rank_out in range(step, channels_out + 1, step):
                for rank_in in range(step, channels_in + 1, step):
                    form = self.form((rank_out, rank_in))
                    if self.saves(form):
                        yield form

    def rewrite(self, rank: tuple[int, ...]) -> float:
        """Three calls instead of one; the core keeps stride, padding and dilation, the last call the bias."""
        W = self.site.W
        core, factor_out, factor_in = tucker2(W, (rank[0], rank[1]))
        surgery.replace(self.site.module, self.site.node, lambda: self._insert(core, factor_out, factor_in))
        rebuilt = torch.einsum("ab...,oa,ib->oi...", core.double(), factor_out.double(), factor_in.double())
        return relative_error(W, rebuilt)

    def _insert(self, core: Tensor, factor_out: Tensor, factor_in: Tensor) -> Node:
        module, node = self.site.module, self.site.node
        ones = (1,) * (self.site.W.dim() - 2)
        plain = PLAIN_CONVOLUTION[len(ones)]
        first = self.site.store("factor_in", factor_in.T.reshape(*factor_in.T.shape, *ones))
        inner = surgery.call(module, plain, surgery.arguments(node)["input"], first)
        inner = surgery.recall(module, node, input=inner, weight=self.site.store("core", core), bias=None)
        last = self.site.store("factor_out", factor_out.reshape(*factor_out.shape, *ones))
        return surgery.call(module, plain, inner, last, self.site.bias)
