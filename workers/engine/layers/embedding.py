"""Embeddings: tables that are looked up, and multiplied by where the output layer is tied to them."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from workers.engine.graph import surgery
from workers.engine.layers.base import Form, Site
from workers.engine.layers.matrix import MatrixLayer

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

    def saves(self, form: Form) -> bool:
        """Whether a form has fewer parameters; and fewer MACs, if there are any to save."""
        return form.parameters < self.parameters and (self.macs == 0 or form.macs < self.macs)

    @property
    def tied(self) -> bool:
        """Whether there is a head."""
        return any(not is_lookup(site) for site in self.sites)

    @property
    def takes_mean(self) -> bool:
        """Never: a mean of one-hot vectors says nothing that the frequencies do not."""
        return False

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


def is_lookup(site: Site) -> bool:
    """Whether a call looks rows up; else it is a head."""
    return site.node.target is aten.embedding.default


def _logits(arguments: Mapping[str, Any]) -> Iterator[Tensor]:
    """The outputs of a head a thousand vectors at a time: vocabularies are large."""
    for x in arguments["input"].flatten(0, -2).split(1024):
        yield F.linear(x, arguments["weight"], arguments["bias"]).double()
