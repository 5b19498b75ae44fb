"""Tensor trains in a graph: what they lose, and the calls that multiply by one or look rows up in it."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.decomposition.refine import refine
from workers.engine.decomposition.tensor_train import (
    Sizes,
    feasible_ranks,
    max_ranks,
    parameters,
    rebuild,
    tensor_train,
    unfolding_tails,
)
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Layer
from workers.engine.layers.weighting import Weighting

aten = torch.ops.aten
L = TypeVar("L", bound=Layer)

CORES = 3  # two divide too little, more lose too much (Novikov et al. 2015, Hrinchuk et al. 2020)


class TrainFactorization(Factorization[L]):
    """TT-SVD of a matrix W (m, n) whose rows and columns are numbered by digits, refined to the data."""

    method = "tensor_train"

    @property
    @abstractmethod
    def matrix(self) -> Tensor:
        """W, (m, n)."""

    @property
    @abstractmethod
    def weighting(self) -> Weighting:
        """What is known about it, as for (m, n)."""

    @property
    @abstractmethod
    def rows(self) -> Sizes:
        """Bases of the digits of a row: their product is m or more."""

    @property
    @abstractmethod
    def columns(self) -> Sizes:
        """Bases of the digits of a column: their product is n."""

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The smaller side of each unfolding."""
        return max_ranks(self.rows, self.columns)

    @cached_property
    def _tails(self) -> list[list[float]]:
        return [tails.tolist() for tails in unfolding_tails(self.matrix, self.rows, self.columns)]

    def error(self, rank: tuple[int, ...]) -> float:
        """A bound: what the unfoldings lose, all rows and columns alike (Oseledets 2011, theorem 2.2)."""
        return min(1.0, sum(tails[r] for tails, r in zip(self._tails, rank, strict=True)))

    def weights(self, rank: tuple[int, ...]) -> int:
        """Weights of all cores."""
        return parameters(self.rows, self.columns, rank)

    def fit(self, rank: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
        """The cores, and the matrix that they stand for."""
        weighting, W = self.weighting, self.matrix

        def rebuilt(cores: Sequence[Tensor]) -> Tensor:
            return rebuild(cores)[: len(W)]

        cores = list(tensor_train(W, self.rows, self.columns, rank))
        if self.layer.polished and (weighting.right is not None or weighting.left is not None):
            cores = refine(cores, rebuilt, W, right=weighting.right, left=weighting.left)
        return cores, rebuilt([core.double() for core in cores]).to(W.dtype)

    def merged(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Tensor:
        """The matrix that stored cores stand for."""
        ranks = (1, *feasible_ranks(self.rows, self.columns, rank), 1)
        cores = []
        for k, (m, n) in enumerate(zip(self.rows, self.columns, strict=True)):
            core = stored[self.layer.path_of(f"core_{k}")].double()
            cores.append(core.reshape(m, ranks[k], n, ranks[k + 1]).transpose(0, 1))
        return rebuild(cores)[: len(self.matrix)].to(self.matrix.dtype)


def multiply(module: GraphModule, x: Node, cores: Sequence[Node], shapes: Sequence[torch.Size]) -> Node:
    """Insert W x for x (…, n), as `decomposition.tensor_train.apply` does it: one linear layer a core.

    Args:
        cores: as `as_matrix` gives them.
        shapes: what they were, (r_{k−1}, m_k, n_k, r_k).
    """
    state = surgery.call(module, aten.unflatten.int, x, -1, [1, prod(shape[2] for shape in shapes), 1])
    for core, (before, m, n, _) in reversed(list(zip(cores, shapes, strict=True))):
        state = surgery.call(module, aten.unflatten.int, state, -2, [-1, n])
        state = surgery.call(module, aten.flatten.using_ints, state, -2, -1)
        state = surgery.call(module, aten.linear.default, state, core)
        state = surgery.call(module, aten.unflatten.int, state, -1, [m, before])
        state = surgery.call(module, aten.movedim.int, state, -2, -4)
        state = surgery.call(module, aten.flatten.using_ints, state, -4, -3)
    return surgery.call(module, aten.flatten.using_ints, state, -3, -1)


def look_up(module: GraphModule, ids: Node, cores: Sequence[Node], shapes: Sequence[torch.Size]) -> Node:
    """Insert the rows of W at ids (…), as `decomposition.tensor_train.rows_of` finds them: a lookup a core.

    Args:
        cores: as `as_table` gives them.
        shapes: what they were, (r_{k−1}, m_k, n_k, r_k).
    """
    stride, state = prod(shape[1] for shape in shapes), None
    for core, (before, m, n, after) in zip(cores, shapes, strict=True):
        stride //= m
        digit = surgery.call(module, aten.floor_divide.Scalar, ids, stride)
        digit = surgery.call(module, aten.remainder.Scalar, digit, m)
        found = surgery.call(module, aten.embedding.default, core, digit)
        found = surgery.call(module, aten.unflatten.int, found, -1, [before, n * after])
        state = found if state is None else surgery.call(module, aten.matmul.default, state, found)
        state = surgery.call(module, aten.unflatten.int, state, -1, [n, after])
        state = surgery.call(module, aten.flatten.using_ints, state, -3, -2)
    return surgery.call(module, aten.flatten.using_ints, state, -2, -1)


def as_matrix(core: Tensor) -> Tensor:
    """A core (r_{k−1}, m_k, n_k, r_k) as the weight of a linear layer, (m_k r_{k−1}, n_k r_k)."""
    return core.transpose(0, 1).flatten(0, 1).flatten(1)


def as_table(core: Tensor) -> Tensor:
    """A core (r_{k−1}, m_k, n_k, r_k) as what is looked up by a digit, (m_k, r_{k−1} n_k r_k)."""
    return core.transpose(0, 1).flatten(1)
