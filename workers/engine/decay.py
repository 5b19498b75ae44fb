"""Frobenius decay: what is kept small of a factorised layer is the product of its factors.

Weight decay on the factors, ‖A‖² + ‖B‖², bounds the nuclear norm of A B and so its rank once more; the decay
that the dense weight would have had is ‖A B‖² (Khodak et al. 2021).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.conv.layer import CONVOLUTIONS

# What layers call the factors that they store beside a weight, the last one applied first.
_PARTS = (("left", "right"), ("second", "first"), ("factor_out", "core", "factor_in"))


@dataclass(frozen=True)
class Product:
    """The factors of one weight by path, the last one applied first, and the groups of each."""

    paths: tuple[str, ...]
    groups: int = 1


def products(network: Network) -> list[Product]:
    """The factorised weights whose energy is known: matrices in two factors of their own, and convolutions in
    two or three, none of them transposed, depthwise or made in the graph."""
    reads = {str(node.target): node for node in network.module.graph.find_nodes(op="get_attr")}
    found: list[Product] = []
    for path in reads:
        for parts in _PARTS:
            stem = path.removesuffix(f"_{parts[0]}")
            paths = tuple(f"{stem}_{part}" for part in parts)
            if stem != path and reads.keys() >= set(paths):
                found += _product(network.module, [reads[each] for each in paths])
    return found


def energy(network: Network, found: Sequence[Product]) -> Tensor:
    """Σ ‖Ŵ‖² over products, by way of Gram matrices: the weights Ŵ are never made. Differentiable."""
    total = torch.zeros(())
    for product in found:
        factors = [surgery.stored(network.module, path) for path in product.paths]
        chain = _matrices(factors) if factors[0].ndim == 2 else _kernels(factors, product.groups)
        total = total.to(factors[0]) + _chain_energy(chain)
    return total


def _product(module: GraphModule, reads: list[Node]) -> Iterator[Product]:
    tensors = [surgery.tensor_of(module, node) for node in reads]
    if all(tensor.ndim == 2 for tensor in tensors):
        if len(tensors) == 2 and _inner(tensors):
            yield Product(tuple(str(node.target) for node in reads))
        return
    calls: list[Any] = [next(iter(node.users)) for node in reads]
    if not all(call.target in CONVOLUTIONS for call in calls):
        return
    groups = {surgery.arguments(call)["groups"] for call in calls}
    if len(groups) == 1:
        yield Product(tuple(str(node.target) for node in reads), groups.pop())


def _inner(factors: Sequence[Tensor]) -> int | None:
    """The rank that two matrices share, A (m, r) and B (r, n) or both transposed: the smaller of the sizes
    that agree, since it saves."""
    (a, b), (c, d) = (tuple(factor.shape) for factor in factors)
    return min([size for size, other in ((b, c), (a, d)) if size == other], default=None)


def _matrices(factors: Sequence[Tensor]) -> list[Tensor]:
    left, right = factors
    if left.shape[1] != right.shape[0] or left.shape[1] != _inner(factors):
        left, right = left.T, right.T
    return [left[None, :, :, None], right[None, :, :, None]]


def _kernels(factors: Sequence[Tensor], groups: int) -> list[Tensor]:
    return [kernel.flatten(2).reshape(groups, -1, *kernel.flatten(2).shape[1:]) for kernel in factors]


def _chain_energy(chain: Sequence[Tensor]) -> Tensor:
    """Of kernels (groups, outputs, inputs, taps), the last one applied first."""
    *outer, first = chain
    gram = torch.einsum("gaik,gbik->gab", first, first)
    for kernel in reversed(outer[1:]):
        gram = torch.einsum("gaik,gij,gbjk->gab", kernel, gram, kernel)
    return torch.einsum("goik,gojk,gij->", outer[0], outer[0], gram)
