"""Attention: projections that meet only in a product, head by head, and are factorized as that product.

Queries and keys meet in x W_qᵀ W_k x', values and outputs in W_o W_v x. A low-rank form of the product is two
narrower projections and smaller heads: nothing is multiplied that was not before (MoDeGPT, Lin et al. 2024).
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.svd import Svd
from workers.engine.decomposition.whitening import Root, root
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Layer, Rewritten, Site

aten = torch.ops.aten


class Heads(NamedTuple):
    """A linear call whose output is split into heads, and the node (batch, heads, length, size) that holds
    them."""

    linear: Node
    split: Node
    number: int
    size: int


class AttentionPair(Layer):
    """Two linear layers with one attention between them.

    The first is the layer's weight: the pair's form is one of rank r for each head of the first, whose other
    factor the second takes up. The first's bias is a column of its weight; the second's input is the heads.
    """

    kind = "attention"
    reads_heads: ClassVar[bool] = False
    """Whether the second multiplies the heads, rather than making some."""

    def __init__(self, first: Site, second: Site, heads: Heads, attention: Node) -> None:
        super().__init__(first)
        self.second = second
        self.heads = heads
        self.attention = attention

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.site.name}+{self.second.name}"

    @cached_property
    def parameters(self) -> int:
        """Weights and biases of both."""
        return sum(_size(site.module, node) for site in self.members for node in (site.weight, site.bias))

    @property
    def members(self) -> tuple[Site, Site]:
        """Both calls."""
        return self.site, self.second

    @property
    def macs(self) -> int:
        """Both linear layers, and the product of their heads in the attention."""
        return self.macs_per_size * self.heads.size

    @property
    def macs_per_size(self) -> int:
        """Multiply-accumulates for every element of a head."""
        linear = sum(
            prod(site.input_shape[:-1]) * n for site, n in zip(self.members, self.widths, strict=True)
        )
        return self.heads.number * (linear + self.products)

    @property
    def takes_mean(self) -> bool:
        """Whether the first has a bias: it is a part of what is factorized."""
        return self.site.bias is not None

    @property
    def widths(self) -> tuple[int, int]:
        """What the heads lie between: the first's inputs, and what the second leads to."""
        return self.matrix.shape[1], self.seconds.shape[2]

    @property
    @abstractmethod
    def seconds(self) -> Tensor:
        """The second's weight by head: (heads, size, width)."""

    @property
    @abstractmethod
    def products(self) -> int:
        """Pairs of a query and a key."""

    @property
    def shares_input(self) -> bool:
        """Whether the second's width is of the very vectors that the first multiplies."""
        return False

    @abstractmethod
    def insert(self, first: Tensor, bias: Tensor | None, second: Tensor) -> None:
        """Put narrower projections into the graph: weights (heads, r, width) of both, the first's bias
        (heads, r)."""

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The first's inputs."""
        x: Tensor = arguments["input"]
        return x.flatten(0, -2)

    def gradients(self, gradient: Tensor) -> Tensor:
        """The first's outputs."""
        return gradient.flatten(0, -2)

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """The two as one."""
        return (JointSvdFactorization(self),)


class QueryKeyPair(AttentionPair):
    """Queries and keys. The keys' bias goes: it adds the same to every score of a query, and softmax ignores
    that."""

    def __init__(self, query: Site, key: Site, heads: Heads, keys: Heads, attention: Node) -> None:
        super().__init__(query, key, heads, attention)
        self._keys = keys

    @cached_property
    def bias_parameters(self) -> int:
        """None stays as it is."""
        return 0

    @property
    def seconds(self) -> Tensor:
        """The keys' weight by head."""
        return torch.stack(self.second.W.chunk(self.heads.number))

    @property
    def products(self) -> int:
        """Queries × keys."""
        return prod(self.site.input_shape[:-1]) * self.second.input_shape[1]

    @property
    def shares_input(self) -> bool:
        """Self-attention."""
        return self.site.arguments["input"] is self.second.arguments["input"]

    def insert(self, first: Tensor, bias: Tensor | None, second: Tensor) -> None:
        """The scale stays the original's. What an attention gives has other strides where queries and values
        differ in size."""
        module, scale = self.site.module, surgery.arguments(self.attention)["scale"]
        surgery.replace(module, self.heads.split, lambda: _split(self.site, first, bias))
        surgery.replace(module, self._keys.split, lambda: _split(self.second, second, None))
        surgery.loosen(self.attention)
        surgery.update(self.attention, scale=self.heads.size**-0.5 if scale is None else scale)


class ValueOutputPair(AttentionPair):
    """Values and outputs. The values keep a bias of their own: where a mask leaves a query nothing to see, it
    adds nothing."""

    reads_heads = True

    @cached_property
    def bias_parameters(self) -> int:
        """The outputs' bias stays as it is."""
        return _size(self.second.module, self.second.bias)

    @property
    def seconds(self) -> Tensor:
        """The outputs' weight by head, transposed."""
        return torch.stack(self.second.W.T.chunk(self.heads.number))

    @property
    def products(self) -> int:
        """Queries × values."""
        return prod(self.second.input_shape[:-1]) * self.site.input_shape[1]

    def insert(self, first: Tensor, bias: Tensor | None, second: Tensor) -> None:
        """The outputs' bias stays."""
        module = self.site.module
        surgery.replace(module, self.heads.split, lambda: _split(self.site, first, bias))

        def build() -> Node:
            inner = surgery.call(module, aten.transpose.int, self.attention, 1, 2)
            inner = surgery.call(module, aten.flatten.using_ints, inner, -2, -1)
            weight = _stored(self.second, self.second.weight, second.flatten(0, 1).T)
            return surgery.call(module, aten.linear.default, inner, weight, self.second.bias)

        surgery.replace(module, self.second.node, build)


class JointSvdFactorization(Factorization[AttentionPair]):
    """One truncated SVD for each head's product: heads of r elements.

    For a head with first weight W (d, n) and second S (d, k), the product's error ‖R (W − A B)ᵀ S L‖ is that
    of W itself, weighted from the left by S C Sᵀ with C = L Lᵀ: r rows B, and Aᵀ S, stand for W and S.
    """

    method = "joint_svd"
    exact = True

    @property
    def max_rank(self) -> tuple[int, ...]:
        """A head's size, or the inputs where they are fewer."""
        return (min(self.layer.heads.size, self.layer.widths[0] + self.layer.takes_mean),)

    @cached_property
    def _tails(self) -> list[float]:
        energies = [svd.energies for svd in self._svds]
        tails: list[float] = relative_tails(torch.stack(energies).sum(0)).tolist()
        return tails

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """r (n + k) weights a head, and r for the first's bias."""
        layer = self.layer
        width = sum(layer.widths) + layer.takes_mean
        return rank[0] * layer.heads.number * width, rank[0] * layer.macs_per_size

    def error(self, rank: tuple[int, ...]) -> float:
        """The discarded tails of all heads."""
        return self._tails[rank[0]]

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Narrower projections and smaller heads."""
        layer, n = self.layer, self.layer.widths[0]
        factors = [svd.truncated(rank[0]) for svd in self._svds]
        firsts = torch.stack([B for _, B in factors])
        seconds = torch.stack([A.T @ S for (A, _), S in zip(factors, layer.seconds, strict=True)])
        rebuilt = torch.cat([(A.double() @ B.double()).to(A.dtype) for A, B in factors])
        warnings = layer.weigh().warnings
        if layer.site.bias is not None:  # what the factors stand for, as with `correct`
            surgery.tensor_of(layer.site.module, layer.site.bias).data.copy_(rebuilt[:, n])
        layer.insert(firsts[..., :n], firsts[..., n] if layer.takes_mean else None, seconds)
        return Rewritten(rebuilt[:, :n], warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Heads of the original's size whose further elements are zeros: their products are the same."""
        layer = self.layer
        first, second = layer.members
        found = {str(first.weight.target): self._padded(stored[_path(first.weight)])}
        if first.bias is not None:
            found[str(first.bias.target)] = self._padded(stored[_path(first.bias)][:, None])[:, 0]
        W = stored[_path(second.weight)]
        whole = self._padded(W.T).T if layer.reads_heads else self._padded(W)
        return found | {str(second.weight.target): whole}

    def _padded(self, narrow: Tensor) -> Tensor:
        """(heads · r, n) as (heads · size, n)."""
        count, size = self.layer.heads.number, self.layer.heads.size
        heads = narrow.reshape(count, -1, narrow.shape[1])
        return F.pad(heads, (0, 0, 0, size - heads.shape[1])).flatten(0, 1)

    @property
    def _svds(self) -> list[Svd]:
        """One for each head."""
        return self.layer.memory.once(self.method, lambda: [Svd(*head) for head in self._heads()])

    def _heads(self) -> Iterator[tuple[Tensor, Root | None, Root]]:
        """For each head the first weight with its bias as a column, and the roots that weight it."""
        layer, weighting = self.layer, self.layer.weigh()
        count, size = layer.heads.number, layer.heads.size
        W, right = layer.matrix, weighting.right
        if layer.site.bias is not None:
            bias = surgery.tensor_of(layer.site.module, layer.site.bias).detach()
            W = torch.cat([W, bias[:, None]], 1)
            right = right and _with_one(right, weighting.mean)
        for head in range(count):
            rows = slice(head * size, (head + 1) * size)
            if weighting.left is not None:
                spread = weighting.left.L[rows]
            else:
                spread = layer.seconds[head].double()
                if layer.shares_input and weighting.right is not None:
                    spread = spread @ weighting.right.L
            yield W[rows], right, root(spread @ spread.T)


def _with_one(half: Root, mean: Tensor | None) -> Root:
    """The root of the second moment of (x, 1), from that of x about its mean."""
    n = len(half.L)
    mean = half.L.new_zeros(n) if mean is None else mean
    last = torch.eye(n + 1, dtype=half.L.dtype, device=half.L.device)[n:]
    L = torch.cat([torch.cat([half.L, mean[:, None]], 1), last])

    def inverse() -> Tensor:
        return torch.cat([torch.cat([half.inverse, -(half.inverse @ mean)[:, None]], 1), last])

    return Root(L @ L.T, L, half.floored, inverse)


def _size(module: Any, node: Node | None) -> int:
    return 0 if node is None else surgery.tensor_of(module, node).numel()


def _split(site: Site, weight: Tensor, bias: Tensor | None) -> Node:
    """Insert a linear layer of weight (heads, r, width) and bias (heads, r), its output split into heads."""
    factors = [_stored(site, site.weight, weight.flatten(0, 1))]
    if site.bias is not None and bias is not None:
        factors.append(_stored(site, site.bias, bias.flatten()))
    inner = surgery.call(site.module, aten.linear.default, site.arguments["input"], *factors)
    inner = surgery.call(site.module, aten.unflatten.int, inner, -1, list(weight.shape[:2]))
    return surgery.call(site.module, aten.transpose.int, inner, 1, 2)


def _stored(site: Site, old: Node, tensor: Tensor) -> Node:
    """A tensor, stored beside the one whose place it takes, and read."""
    surgery.store(site.module, _path(old), tensor)
    return site.module.graph.get_attr(_path(old))


def _path(old: Node) -> str:
    return f"{old.target}_joint"
