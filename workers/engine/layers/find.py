"""Finding the layers of a network: which call multiplies by which weight, and which must stay dense."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.network import Network, call_nodes
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.graph.shapes import shapes
from workers.engine.layers.base import Layer, Site
from workers.engine.layers.conv import KernelConvLayer
from workers.engine.layers.dense import DenseLayer, GroupedConvLayer, RecurrentLayer
from workers.engine.layers.matrix import AddmmLayer, LinearLayer, PointwiseConvLayer
from workers.engine.measure import cost

aten = torch.ops.aten
_CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
# Where each operator keeps its weight and its bias, and what users call it.
_WEIGHT_ARGUMENT = {
    aten.linear.default: ("weight", "bias", "linear"),
    aten.addmm.default: ("mat2", "self", "addmm"),
    aten.embedding.default: ("weight", None, "embedding"),
    aten.conv_transpose1d.default: ("weight", "bias", "conv_transpose1d"),
    aten.conv_transpose2d.input: ("weight", "bias", "conv_transpose2d"),
    aten.conv_transpose3d.input: ("weight", "bias", "conv_transpose3d"),
    **dict.fromkeys(_CONVOLUTIONS, ("weight", "bias", "conv")),
}


def find(network: Network) -> list[Layer]:
    """Every layer that multiplies by a weight, in the order of the graph.

    The layers refer to the network's own graph: `rewrite` edits it in place.
    """
    macs, sizes = cost.count(network).macs_by_node, shapes(network)
    uses = _uses(network.module)
    return [
        layer
        for node in call_nodes(network.module)
        for layer in _layers_at(network.module, node, sizes, macs.get(node.name, 0), uses)
    ]


def _layers_at(
    module: GraphModule, node: Node, sizes: dict[str, tuple[int, ...]], macs: int, uses: Counter[int]
) -> Iterator[Layer]:
    if node.target in RECURRENT:
        yield from _recurrent(module, node, macs)
    elif node.target in _WEIGHT_ARGUMENT:
        site = _site(module, node, sizes)
        if site is not None:
            shared = "its weight is used by more than one call" if uses[_storage(site.W)] > 1 else None
            yield _layer(site, macs, shared)


def _site(module: GraphModule, node: Node, sizes: dict[str, tuple[int, ...]]) -> Site | None:
    weight_name, bias_name, _ = _WEIGHT_ARGUMENT[node.target]  # type: ignore[index]
    values = surgery.arguments(node)
    if not surgery.is_weight(module, values[weight_name]):
        return None
    bias = values[bias_name] if bias_name else None
    inputs = next(value for name, value in values.items() if name in ("input", "mat1", "indices"))
    return Site(
        module=module,
        node=node,
        weight=values[weight_name],
        bias=bias if surgery.is_weight(module, bias) else None,
        input_shape=sizes[inputs.name],
        output_shape=sizes[node.name],
    )


def _layer(site: Site, macs: int, shared: str | None) -> Layer:
    target = site.node.target
    if not site.W.isfinite().all():
        return DenseLayer(site, _kind(site), macs, "its weight holds values that are not finite")
    if target is aten.linear.default:
        return LinearLayer(site, shared)
    if target is aten.addmm.default:
        return _addmm(site, macs, shared)
    if target in _CONVOLUTIONS:
        return _convolution(site, macs, shared)
    return DenseLayer(site, _kind(site), macs, f"{_kind(site)} layers are not decomposed yet")


def _addmm(site: Site, macs: int, shared: str | None) -> Layer:
    values = surgery.arguments(site.node)
    if values["beta"] != 1 or values["alpha"] != 1:
        return DenseLayer(site, "addmm", macs, "the product is scaled inside the call")
    return AddmmLayer(site, shared)


def _convolution(site: Site, macs: int, shared: str | None) -> Layer:
    if surgery.arguments(site.node)["groups"] > 1:
        return GroupedConvLayer(site, _kind(site), macs, "grouped convolutions are not decomposed yet")
    kernel = site.W.shape[2:]
    return PointwiseConvLayer(site, shared) if kernel.numel() == 1 else KernelConvLayer(site, shared)


def _recurrent(module: GraphModule, node: Node, macs: int) -> Iterator[Layer]:
    """A recurrent call holds many weights: one entry for the whole, named after the first."""
    weights = [weight for weight in surgery.arguments(node)["params"] if surgery.is_weight(module, weight)]
    if weights:
        site = Site(module, node, weights[0], None, (), ())
        yield RecurrentLayer(site, weights, RECURRENT[node.target], macs)  # type: ignore[index]


def _kind(site: Site) -> str:
    kind = _WEIGHT_ARGUMENT[site.node.target][2]  # type: ignore[index]
    return f"conv{site.W.dim() - 2}d" if kind == "conv" else kind


def _uses(module: GraphModule) -> Counter[int]:
    """How many calls read each storage: tied weights show here, under whatever names."""
    reads: Counter[int] = Counter()
    for node in module.graph.nodes:
        if surgery.is_weight(module, node):
            reads[_storage(surgery.tensor_of(module, node))] += len(node.users)
    return reads


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
