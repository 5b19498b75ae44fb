"""Layers that multiply by a matrix: linear, addmm and matmul. They take an SVD or a tensor train."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.svd import Svd
from workers.engine.decomposition.tensor_train import Sizes, factor_shape
from workers.engine.decomposition.tensor_train import macs as train_macs
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Factors, Layer, Rewritten, Site
from workers.engine.layers.tensor_train import CORES, TrainFactorization, as_matrix, multiply
from workers.engine.layers.weighting import Weighting

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
        """An SVD, or a tensor train."""
        return SvdFactorization(self), MatrixTrainFactorization(self)


def whole_svd(layer: Layer) -> Svd:
    """That of a layer's matrix, in the norm of its weighting."""

    def compute() -> Svd:
        weighting = layer.weigh()
        return Svd(layer.matrix, weighting.right, weighting.left)

    return layer.memory.once("svd", compute)


class SvdFactorization(Factorization[MatrixLayer]):
    """Truncated SVD, whitened by what the calibration knows: r (m + n) weights instead of m n."""

    method = "svd"
    exact = True

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The rank of the matrix at most."""
        return (min(self.layer.matrix.shape),)

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """The matrix."""
        return ([self.layer.matrix],)

    @property
    def _svd(self) -> Svd:
        return whole_svd(self.layer)

    @cached_property
    def _tails(self) -> list[float]:
        tails: list[float] = relative_tails(self._svd.energies).tolist()
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
        A, B = self._svd.truncated(rank[0])
        rebuilt = multiplied(A, B)
        layer.correct(rebuilt)
        factors = {"left": layer.shaped(A), "right": layer.shaped(B)}
        dense = layer.shaped(rebuilt)
        layer.replace(factors, lambda site, nodes: layer.insert(site, nodes["left"], nodes["right"]))
        return Rewritten(dense, weighting.warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A B."""
        layer = self.layer
        A, B = (layer.shaped(stored[layer.path_of(part)]) for part in ("left", "right"))
        return layer.substitutes(layer.shaped(multiplied(A, B)))


def multiplied(A: Tensor, B: Tensor) -> Tensor:
    """A B, summed in double precision."""
    return (A.double() @ B.double()).to(A.dtype)


class MatrixTrainFactorization(TrainFactorization[MatrixLayer]):
    """A chain of three linear layers on digits of the inputs and outputs."""

    @property
    def matrix(self) -> Tensor:
        """The layer's matrix."""
        return self.layer.matrix

    @property
    def weighting(self) -> Weighting:
        """The layer's own."""
        return self.layer.weigh()

    @property
    def rows(self) -> Sizes:
        """The outputs, the least digit first."""
        return factor_shape(self.matrix.shape[0], CORES)

    @property
    def columns(self) -> Sizes:
        """The inputs, the other way round: cores are then alike in size."""
        return factor_shape(self.matrix.shape[1], CORES)[::-1]

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """Weights of all cores, and their products at every position."""
        positions = sum(map(self.layer.positions, self.layer.sites))
        return self.weights(rank), positions * train_macs(self.rows, self.columns, rank)

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Three linear layers, and the bias."""
        layer, warnings = self.layer, self.weighting.warnings
        cores, rebuilt = self.fit(rank)
        layer.correct(rebuilt)
        shapes = [core.shape for core in cores]

        def insert(site: Site, nodes: Factors) -> Node:
            x = site.arguments[layer.input_name]
            product = multiply(site.module, x, list(nodes.values()), shapes)
            if site.bias is None:
                return product
            return surgery.call(site.module, aten.add.Tensor, product, site.bias)

        layer.replace({f"core_{k}": as_matrix(core) for k, core in enumerate(cores)}, insert)
        return Rewritten(layer.shaped(rebuilt), warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The train's matrix."""
        return self.layer.substitutes(self.layer.shaped(self.merged(rank, stored)))


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
