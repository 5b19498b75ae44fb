"""Layers that multiply by a matrix: linear, addmm, and convolutions with a 1×1 kernel. They take an SVD."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.spectrum import relative_tails, singular_energies
from workers.engine.decomposition.svd import truncated_svd
from workers.engine.graph import surgery
from workers.engine.layers.base import Form, Layer, relative_error

aten = torch.ops.aten


class MatrixLayer(Layer):
    """y = W x + b at some number of positions; in its low-rank form y = A (B x) + b."""

    method = "svd"

    @property
    @abstractmethod
    def matrix(self) -> Tensor:
        """The weight as (outputs, inputs)."""

    @property
    @abstractmethod
    def positions(self) -> int:
        """How many vectors x one example holds: tokens, or pixels."""

    @abstractmethod
    def insert(self, A: Tensor, B: Tensor) -> Node:
        """Insert the two calls that stand for W = A B."""

    @property
    def macs(self) -> int:
        """Positions × outputs × inputs."""
        return self.positions * self.matrix.numel()

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The rank of the matrix at most."""
        return () if self.reason else (min(self.matrix.shape),)

    @cached_property
    def _tails(self) -> list[float]:
        tails: list[float] = relative_tails(singular_energies(self.matrix)).tolist()
        return tails

    def form(self, rank: tuple[int, ...]) -> Form:
        """r (m + n) weights instead of m n."""
        weights = rank[0] * sum(self.matrix.shape)
        return Form(
            method="svd",
            rank=rank,
            parameters=weights + self.site.bias_parameters,
            macs=self.positions * weights,
            error=self._tails[rank[0]],
        )

    def forms(self, step: int) -> Iterator[Form]:
        """Ranks below the break-even m n / (m + n)."""
        if self.reason is None:
            candidates = (self.form((rank,)) for rank in range(step, min(self.matrix.shape) + 1, step))
            yield from (form for form in candidates if self.saves(form))

    def rewrite(self, rank: tuple[int, ...]) -> float:
        """Two calls instead of one."""
        W = self.matrix
        A, B = truncated_svd(W, rank[0])
        surgery.replace(self.site.module, self.site.node, lambda: self.insert(A, B))
        return relative_error(W, A.double() @ B.double())


class LinearLayer(MatrixLayer):
    """aten.linear: the weight is (outputs, inputs)."""

    kind = "linear"

    @property
    def matrix(self) -> Tensor:
        """The weight itself."""
        return self.site.W

    @property
    def positions(self) -> int:
        """All axes of the input but the last."""
        return _product(self.site.input_shape[:-1])

    def insert(self, A: Tensor, B: Tensor) -> Node:
        """linear(linear(x, B), A, b)."""
        x = surgery.arguments(self.site.node)["input"]
        inner = surgery.call(self.site.module, aten.linear.default, x, self.site.store("right", B))
        return surgery.recall(
            self.site.module, self.site.node, input=inner, weight=self.site.store("left", A)
        )


class AddmmLayer(MatrixLayer):
    """aten.addmm(b, x, W): the weight is (inputs, outputs)."""

    kind = "addmm"

    @property
    def matrix(self) -> Tensor:
        """The weight transposed."""
        return self.site.W.T

    @property
    def positions(self) -> int:
        """Rows of the input."""
        return self.site.input_shape[0]

    def insert(self, A: Tensor, B: Tensor) -> Node:
        """addmm(b, x Bᵀ, Aᵀ)."""
        x = surgery.arguments(self.site.node)["mat1"]
        inner = surgery.call(self.site.module, aten.mm.default, x, self.site.store("right", B.T))
        return surgery.recall(self.site.module, self.site.node, mat1=inner, mat2=self.site.store("left", A.T))


class PointwiseConvLayer(MatrixLayer):
    """A convolution whose kernel is 1×1: a matrix at every output pixel."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        """conv1d, conv2d or conv3d."""
        return f"conv{self.site.W.dim() - 2}d"

    @property
    def matrix(self) -> Tensor:
        """The kernel without its unit axes."""
        return self.site.W.flatten(1)

    @property
    def positions(self) -> int:
        """Output pixels."""
        return _product(self.site.output_shape[2:])

    def insert(self, A: Tensor, B: Tensor) -> Node:
        """The stride and padding stay with the first call: the second then works on fewer pixels."""
        module, node = self.site.module, self.site.node
        ones = (1,) * (self.site.W.dim() - 2)
        right = self.site.store("right", B.reshape(*B.shape, *ones))
        inner = surgery.recall(module, node, weight=right, bias=None)
        left = self.site.store("left", A.reshape(*A.shape, *ones))
        return surgery.call(module, PLAIN_CONVOLUTION[len(ones)], inner, left, self.site.bias)


PLAIN_CONVOLUTION = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def _product(sizes: tuple[int, ...]) -> int:
    return torch.Size(sizes).numel()
