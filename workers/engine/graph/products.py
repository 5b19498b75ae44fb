"""Products by a weight that the graph transposes first: they become products by the weight as stored."""

from typing import Any

import torch
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.network import call_nodes

aten = torch.ops.aten
# Where each product has its input, its matrix and its bias.
_ARGUMENTS = {
    aten.matmul.default: ("self", "other", None),
    aten.mm.default: ("self", "mat2", None),
    aten.addmm.default: ("mat1", "mat2", "self"),
    aten.linear.default: ("input", "weight", "bias"),
}


def with_transposed_weights(module: GraphModule) -> list[Node]:
    """The products that `straighten` can rewrite: x Wᵀ, x Wᵀ + b, and linear layers by Wᵀ."""
    return [node for node in call_nodes(module) if node.target in _ARGUMENTS and _can(module, node)]


def straighten(module: GraphModule, node: Node) -> None:
    """Turn x Wᵀ + b into a linear layer by W, and a linear layer by Wᵀ into a product by W."""
    x, matrix, bias = _parts(node)
    weight = matrix.args[0]

    def build() -> Node:
        if node.target is not aten.linear.default:
            return surgery.call(module, aten.linear.default, x, weight, bias)
        product = surgery.call(module, aten.matmul.default, x, weight)
        return product if bias is None else surgery.call(module, aten.add.Tensor, product, bias)

    surgery.replace(module, node, build)


def _can(module: GraphModule, node: Node) -> bool:
    _, matrix, bias = _parts(node)
    if not (isinstance(matrix, Node) and _transposes(module, matrix)):
        return False
    if node.target is not aten.addmm.default:
        return True
    values = surgery.arguments(node)
    plain = values["beta"] == 1 and values["alpha"] == 1
    return plain and surgery.is_weight(module, bias) and surgery.tensor_of(module, bias).ndim == 1


def _parts(node: Node) -> tuple[Any, Any, Any]:
    values = surgery.arguments(node)
    x, matrix, bias = _ARGUMENTS[node.target]  # type: ignore[index]
    return values[x], values[matrix], values[bias] if bias else None


def _transposes(module: GraphModule, node: Node) -> bool:
    """Whether a node is a stored matrix with its axes swapped."""
    if not (node.args and surgery.is_weight(module, node.args[0])):
        return False
    weight: Any = node.args[0]
    if surgery.tensor_of(module, weight).ndim != 2:
        return False
    if node.target in (aten.t.default, aten.numpy_T.default, aten.mT.default):
        return True
    axes = node.args[1:]
    if node.target in (aten.transpose.int, aten.swapaxes.default, aten.swapdims.default):
        return sorted(axis % 2 for axis in axes) == [0, 1]  # type: ignore[operator]
    return node.target is aten.permute.default and [axis % 2 for axis in axes[0]] == [1, 0]  # type: ignore
