"""Layers that multiply by a matrix: linear, addmm, matmul, convolutions of kernel 1×1. They take an SVD."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.spectrum import relative_tails, singular_energies
from workers.engine.decomposition.svd import truncated_svd
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Layer, Rewritten, Site

aten = torch.ops.aten


class MatrixLayer(Layer):
    """y = W x + b at some number of positions; in its low-rank form y = A (B x) + b."""

    input_name: ClassVar[str] = "input"  # of x among the call's arguments

    def positions(self, site: Site) -> int:
        """How many vectors x one example brings to a call: all axes of the input but the last."""
        return prod(site.input_shape[:-1])

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The input's last axis."""
        x: Tensor = arguments[self.input_name]
        return x.reshape(-1, x.shape[-1])

    def gradients(self, gradient: Tensor) -> Tensor:
        """The output's last axis."""
        return gradient.reshape(-1, gradient.shape[-1])

    @abstractmethod
    def shaped(self, matrix: Tensor) -> Tensor:
        """A matrix (outputs, inputs) as the call takes it."""

    @abstractmethod
    def insert(self, site: Site, left: Node, right: Node) -> Node:
        """Insert the two calls that stand for W = A B, given A (`left`) and B (`right`) as the calls take
        them."""

    @property
    def macs(self) -> int:
        """Positions × outputs × inputs."""
        return sum(map(self.positions, self.sites)) * self.matrix.numel()

    def low_rank_macs(self, rank: int) -> int:
        """r (m + n) at every position."""
        return sum(map(self.positions, self.sites)) * rank * sum(self.matrix.shape)

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """A matrix takes an SVD."""
        return (SvdFactorization(self),)


class SvdFactorization(Factorization[MatrixLayer]):
    """Truncated SVD, whitened by what the calibration knows: r (m + n) weights instead of m n."""

    method = "svd"

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The rank of the matrix at most."""
        return (min(self.layer.matrix.shape),)

    @cached_property
    def _tails(self) -> list[float]:
        weighting = self.layer.weigh()
        energies = singular_energies(self.layer.matrix, right=weighting.right, left=weighting.left)
        tails: list[float] = relative_tails(energies).tolist()
        return tails

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """r (m + n) weights, and what the layer does with them."""
        return rank[0] * sum(self.layer.matrix.shape), self.layer.low_rank_macs(rank[0])

    def error(self, rank: tuple[int, ...]) -> float:
        """The discarded tail of the spectrum."""
        return self._tails[rank[0]]

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Two calls instead of one."""
        layer, weighting = self.layer, self.layer.weigh()
        A, B = truncated_svd(layer.matrix, rank[0], right=weighting.right, left=weighting.left)
        rebuilt = (A.double() @ B.double()).to(A.dtype)
        layer.correct(rebuilt)
        factors = {"left": layer.shaped(A), "right": layer.shaped(B)}
        dense = layer.shaped(rebuilt)
        layer.replace(factors, lambda site, nodes: layer.insert(site, nodes["left"], nodes["right"]))
        return Rewritten(dense, weighting.warnings)


class LinearLayer(MatrixLayer):
    """aten.linear: the weight is (outputs, inputs)."""

    kind = "linear"

    def shaped(self, matrix: Tensor) -> Tensor:
        """As it is."""
        return matrix

    def insert(self, site: Site, left: Node, right: Node) -> Node:
        """linear(linear(x, B), A, b)."""
        inner = surgery.call(site.module, aten.linear.default, site.arguments["input"], right)
        return surgery.recall(site.module, site.node, input=inner, weight=left)


class AddmmLayer(MatrixLayer):
    """aten.addmm(b, x, W): the weight is (inputs, outputs)."""

    kind = "addmm"
    input_name = "mat1"

    @property
    def matrix(self) -> Tensor:
        """The weight transposed."""
        return self.site.W.T

    def shaped(self, matrix: Tensor) -> Tensor:
        """Transposed."""
        return matrix.T

    def insert(self, site: Site, left: Node, right: Node) -> Node:
        """addmm(b, x Bᵀ, Aᵀ)."""
        inner = surgery.call(site.module, aten.mm.default, site.arguments["mat1"], right)
        return surgery.recall(site.module, site.node, mat1=inner, mat2=left)


class MatmulLayer(AddmmLayer):
    """aten.matmul(x, W) or aten.mm(x, W): the weight is (inputs, outputs), and there is no bias."""

    kind = "matmul"
    input_name = "self"

    def insert(self, site: Site, left: Node, right: Node) -> Node:
        """(x Bᵀ) Aᵀ."""
        inner = surgery.call(site.module, aten.matmul.default, site.arguments["self"], right)
        return surgery.call(site.module, aten.matmul.default, inner, left)


class PointwiseConvLayer(MatrixLayer):
    """A convolution whose kernel is 1×1: a matrix at every output pixel."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        """conv1d, conv2d or conv3d."""
        return f"conv{self.site.W.dim() - 2}d"

    def shaped(self, matrix: Tensor) -> Tensor:
        """With the kernel's unit axes."""
        return matrix.reshape(*matrix.shape, *(1,) * (self.site.W.dim() - 2))

    def positions(self, site: Site) -> int:
        """Output pixels."""
        return prod(site.output_shape[2:])

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The channels of every pixel, those that a stride passes over included."""
        return channels_last(arguments["input"])

    def gradients(self, gradient: Tensor) -> Tensor:
        """The channels of every output pixel."""
        return channels_last(gradient)

    def insert(self, site: Site, left: Node, right: Node) -> Node:
        """The stride and padding stay with the first call: the second then works on fewer pixels."""
        inner = surgery.recall(site.module, site.node, weight=right, bias=None)
        plain = PLAIN_CONVOLUTION[self.site.W.dim() - 2]
        return surgery.call(site.module, plain, inner, left, site.bias)


PLAIN_CONVOLUTION = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def channels_last(x: Tensor) -> Tensor:
    """A feature map (N, C, …) as (positions, C); one example without a batch axis is not expected here."""
    return x.movedim(1, -1).flatten(0, -2)
