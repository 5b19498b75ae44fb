"""Embeddings: tables that are looked up, and multiplied by where the output layer is tied to them."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from workers.engine.decomposition.tensor_train import Sizes, factor_shape, lookup_macs
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Factors, Rewritten, Site
from workers.engine.layers.matrix import MatrixLayer, SvdFactorization
from workers.engine.layers.tensor_train import CORES, TrainFactorization, as_table, look_up
from workers.engine.layers.weighting import Weighting

aten = torch.ops.aten


class EmbeddingLayer(MatrixLayer):
    """A table (V, d) as the matrix (d, V) that multiplies one-hot vectors; a tied head multiplies by its
    transpose. In its low-rank form a lookup in a table (V, r) and a linear layer of r into d; both ends share
    the two factors.
    """

    kind = "embedding"
    one_hot = True

    @property
    def matrix(self) -> Tensor:
        """The table transposed."""
        return self.site.W.T

    def shaped(self, matrix: Tensor) -> Tensor:
        """Transposed."""
        return matrix.T

    def positions(self, site: Site) -> int:
        """Rows that are looked up, or vectors that the head multiplies."""
        return prod(site.input_shape if is_lookup(site) else site.input_shape[:-1])

    @property
    def head_positions(self) -> int:
        """Vectors that the tied heads multiply, all calls together."""
        return sum(self.positions(site) for site in self.sites if not is_lookup(site))

    @property
    def lookup_positions(self) -> int:
        """Rows that are looked up, all calls together."""
        return sum(self.positions(site) for site in self.sites if is_lookup(site))

    @property
    def macs(self) -> int:
        """Those of the tied heads: a lookup multiplies nothing."""
        return self.head_positions * self.matrix.numel()

    def low_rank_macs(self, rank: int) -> int:
        """r d for a row that is looked up, r (V + d) for a vector in a head."""
        d, V = self.matrix.shape
        return self.lookup_positions * rank * d + self.head_positions * rank * (d + V)

    @property
    def tied(self) -> bool:
        """Whether there is a head."""
        return any(not is_lookup(site) for site in self.sites)

    @property
    def takes_mean(self) -> bool:
        """Never: a mean of one-hot vectors says nothing that the frequencies do not."""
        return False

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """An SVD; a tensor train where no head is tied."""
        svd = SvdFactorization(self)
        return (svd,) if self.tied else (svd, EmbeddingTrainFactorization(self))

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """How often each row counts, (V,): looked up, or expected by the head's softmax."""
        V = len(self.site.W)
        if "indices" in arguments:
            return torch.bincount(arguments["indices"].flatten(), minlength=V).double()
        return sum((logits.softmax(-1).sum(0) for logits in _logits(arguments)), torch.zeros(()))

    def transposed_vectors(self, arguments: Mapping[str, Any]) -> Tensor | None:
        """What a head multiplies."""
        return None if "indices" in arguments else arguments["input"].flatten(0, -2)

    def insert(self, site: Site, left: Node, right: Node) -> Node:
        """embedding(Bᵀ, ids) Aᵀ; in a head linear(linear(x, Aᵀ), Bᵀ, b)."""
        if is_lookup(site):
            inner = surgery.recall(site.module, site.node, weight=right)
            return surgery.call(site.module, aten.matmul.default, inner, left)
        inner = surgery.call(site.module, aten.linear.default, site.arguments["input"], left)
        return surgery.recall(site.module, site.node, input=inner, weight=right)


class EmbeddingTrainFactorization(TrainFactorization[EmbeddingLayer]):
    """A lookup in three small tables by the digits of an id (Hrinchuk et al. 2020)."""

    @property
    def matrix(self) -> Tensor:
        """The table."""
        return self.layer.site.W

    @property
    def weighting(self) -> Weighting:
        """The layer's, of the table instead of its transpose."""
        found = self.layer.weigh()
        return Weighting(right=found.left, left=found.right, warnings=found.warnings)

    @property
    def rows(self) -> Sizes:
        """Ids; a vocabulary need not have factors."""
        return factor_shape(self.matrix.shape[0], CORES, ceil=True)

    @property
    def columns(self) -> Sizes:
        """The embedding's elements."""
        return factor_shape(self.matrix.shape[1], CORES)

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """Weights of all cores, and the products that join what is looked up."""
        macs = lookup_macs(self.rows, self.columns, rank)
        return self.weights(rank), self.layer.lookup_positions * macs

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Three lookups, joined; a padding index is a row like any other."""
        warnings = self.weighting.warnings
        cores, rebuilt = self.fit(rank)
        shapes = [core.shape for core in cores]

        def insert(site: Site, nodes: Factors) -> Node:
            return look_up(site.module, site.arguments["indices"], list(nodes.values()), shapes)

        self.layer.replace({f"core_{k}": as_table(core) for k, core in enumerate(cores)}, insert)
        return Rewritten(rebuilt, warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The train's table."""
        return self.layer.substitutes(self.merged(rank, stored))


def is_lookup(site: Site) -> bool:
    """Whether a call looks rows up; else it is a head."""
    return site.node.target is aten.embedding.default


def _logits(arguments: Mapping[str, Any]) -> Iterator[Tensor]:
    """The outputs of a head a thousand vectors at a time: vocabularies are large."""
    for x in arguments["input"].flatten(0, -2).split(1024):
        yield F.linear(x, arguments["weight"], arguments["bias"]).double()
