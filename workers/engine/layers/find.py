"""Finding the layers of a network: which calls use which weight, and which weights must stay dense."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.network import Network, call_nodes
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.graph.scan import COND, SCAN
from workers.engine.graph.shapes import shapes
from workers.engine.layers.base import Layer, Site
from workers.engine.layers.conv.kinds import KernelConvLayer, PointwiseConvLayer
from workers.engine.layers.conv.layer import CONVOLUTIONS, TRANSPOSED
from workers.engine.layers.dense import DenseLayer, WholeCall
from workers.engine.layers.embedding import EmbeddingLayer
from workers.engine.layers.matrix import AddmmLayer, LinearLayer, MatmulLayer
from workers.engine.layers.pairs import paired
from workers.engine.layers.recurrent.find import recurrent_layers
from workers.engine.measure import cost

aten = torch.ops.aten
# Where each operator keeps its weight and its bias, and what users call it.
_WEIGHT_ARGUMENT = {
    aten.linear.default: ("weight", "bias", "linear"),
    aten.addmm.default: ("mat2", "self", "addmm"),
    aten.mm.default: ("mat2", None, "matmul"),
    aten.matmul.default: ("other", None, "matmul"),
    aten.embedding.default: ("weight", None, "embedding"),
    **dict.fromkeys(CONVOLUTIONS, ("weight", "bias", "conv")),
    **dict.fromkeys(TRANSPOSED, ("weight", "bias", "conv_transpose")),
}
# Calls that run graphs of their own, and why the weights in there stay as they are.
_INSIDE = {
    SCAN: ("scan", "its weights are used at every step of a loop (scan)"),
    COND: ("cond", "its weights are used in a branch (cond)"),
}

Storage = tuple[
    int, torch.Size, tuple[int, ...]
]  # first byte, shape, strides: equal for weights that are tied


def find(network: Network, *, joint: bool = False) -> list[Layer]:
    """Every weight that calls multiply by, in the order of the graph's first use; tied weights are one layer.

    With `joint`, two linear layers that meet in an attention are one layer too (see `pairs`). The layers
    refer to the network's own graph: their factorizations edit it in place.
    """
    counted, sizes = cost.count(network).macs_by_node, shapes(network)
    reads = _reads(network.module)
    layers: list[Layer] = []
    done: set[Storage] = set()
    calls = call_nodes(network.module)
    recurrent = recurrent_layers(
        network.module,
        [node for node in calls if node.target in RECURRENT],
        sizes,
        counted,
        lambda weight: len(reads[_storage(surgery.tensor_of(network.module, weight))]),
    )
    for node in calls:
        if node in recurrent:
            layers.extend(recurrent[node])
        elif node.target in _INSIDE:
            layers.extend(_inside(network.module, node, counted.get(node.name, 0), reads, done))
        elif node.target in _WEIGHT_ARGUMENT and (weight := _weight(network.module, node)) is not None:
            storage = _storage(surgery.tensor_of(network.module, weight))
            if storage not in done:
                done.add(storage)
                layers.append(_layer(network.module, reads[storage], sizes, counted))
    return paired(layers) if joint else layers


def _inside(
    module: GraphModule,
    node: Node,
    macs: int,
    reads: Mapping[Storage, Sequence[tuple[Node, Node]]],
    done: set[Storage],
) -> Iterator[Layer]:
    """The weights that only graphs inside of the graph read, as one layer, named after its first matrix."""
    weights: dict[Storage, Node] = {}
    for weight in filter(partial(surgery.is_weight, module), node.all_input_nodes):
        storage = _storage(surgery.tensor_of(module, weight))
        if storage not in done and all(user.target in _INSIDE for _, user in reads[storage]):
            weights.setdefault(storage, weight)
    matrices = [weight for weight in weights.values() if surgery.tensor_of(module, weight).dim() > 1]
    if matrices:
        done.update(weights)
        kind, reason = _INSIDE[node.target]  # type: ignore[index]
        site = Site(module, node, matrices[0], None, (), ())
        yield WholeCall(site, list(weights.values()), kind, macs, reason)


def _weight(module: GraphModule, node: Node) -> Node | None:
    weight = surgery.arguments(node)[_WEIGHT_ARGUMENT[node.target][0]]  # type: ignore[index]
    return weight if surgery.is_weight(module, weight) else None


def _layer(
    module: GraphModule,
    reads: Sequence[tuple[Node, Node]],
    sizes: dict[str, tuple[int, ...]],
    counted: dict[str, int],
) -> Layer:
    """The layer of one weight, from all (weight node, reader) pairs that read it."""
    sites = [
        _site(module, node, sizes)
        for weight, node in reads
        if node.target in _WEIGHT_ARGUMENT and _weight(module, node) is weight
    ]
    macs = sum(counted.get(site.node.name, 0) for site in sites)
    make = {_maker(site) for site in sites}
    if make == {_linear, _embedding}:
        make = {_embedding}  # it takes tied heads along
    reason = None
    if not surgery.is_finite(sites[0].W):
        reason = "its weight holds values that are not finite"
    elif len(sites) < len(reads) or len(make) > 1:
        reason = "its weight is used by more than one kind of operation"
    if reason is not None:
        return DenseLayer(*sites, kind=_kind(sites[0]), macs=macs, reason=reason)
    return make.pop()(sites, macs)


def _site(module: GraphModule, node: Node, sizes: dict[str, tuple[int, ...]]) -> Site:
    weight_name, bias_name, _ = _WEIGHT_ARGUMENT[node.target]  # type: ignore[index]
    values = surgery.arguments(node)
    bias = values[bias_name] if bias_name else None
    inputs = next(values[name] for name in ("input", "mat1", "indices", "self") if name in values)
    return Site(
        module=module,
        node=node,
        weight=values[weight_name],
        bias=bias if surgery.is_weight(module, bias) else None,
        input_shape=sizes[inputs.name],
        output_shape=sizes[node.name],
    )


Maker = Callable[[Sequence[Site], int], Layer]


def _maker(site: Site) -> Maker:
    """What makes the layer of a weight that calls like this one use."""
    target = site.node.target
    if target is aten.linear.default:
        return _linear
    if target is aten.addmm.default:
        return _addmm
    if target is aten.embedding.default:
        return _embedding
    if target in (aten.mm.default, aten.matmul.default):
        return _matmul
    return _convolution if target in CONVOLUTIONS | TRANSPOSED else _dense


def _linear(sites: Sequence[Site], _: int) -> Layer:
    return LinearLayer(*sites)


def _addmm(sites: Sequence[Site], macs: int) -> Layer:
    if any(site.arguments["beta"] != 1 or site.arguments["alpha"] != 1 for site in sites):
        return DenseLayer(*sites, kind="addmm", macs=macs, reason="the product is scaled inside the call")
    return AddmmLayer(*sites)


def _matmul(sites: Sequence[Site], macs: int) -> Layer:
    if sites[0].W.ndim != 2:
        return DenseLayer(*sites, kind="matmul", macs=macs, reason="its weight is not a matrix")
    return MatmulLayer(*sites)


def _embedding(sites: Sequence[Site], _: int) -> Layer:
    return EmbeddingLayer(*sites)


def _convolution(sites: Sequence[Site], macs: int) -> Layer:
    if len({(site.node.target in TRANSPOSED, site.arguments["groups"]) for site in sites}) > 1:
        reason = "its calls differ in direction or in groups"
        return DenseLayer(*sites, kind=_kind(sites[0]), macs=macs, reason=reason)
    pointwise = sites[0].W.shape[2:].numel() == 1
    layer = PointwiseConvLayer(*sites) if pointwise else KernelConvLayer(*sites)
    if layer.groups > 1 and layer.kernels.shape[2] == 1:
        layer.reason = "depthwise convolutions stay dense: there are no channels within a group to factorize"
    return layer


def _dense(sites: Sequence[Site], macs: int) -> Layer:
    kind = _kind(sites[0])
    return DenseLayer(*sites, kind=kind, macs=macs, reason=f"{kind} layers are not decomposed yet")


def _kind(site: Site) -> str:
    kind = _WEIGHT_ARGUMENT[site.node.target][2]  # type: ignore[index]
    return f"{kind}{site.W.dim() - 2}d" if kind.startswith("conv") else kind


def _reads(module: GraphModule) -> dict[Storage, list[tuple[Node, Node]]]:
    """Every (weight node, reader) by what is read: tied weights share an entry, under whatever names."""
    reads: dict[Storage, list[tuple[Node, Node]]] = {}
    for node in module.graph.nodes:
        if surgery.is_weight(module, node):
            storage = _storage(surgery.tensor_of(module, node))
            reads.setdefault(storage, []).extend((node, user) for user in node.users)
    return reads


def _storage(tensor: Tensor) -> Storage:
    return tensor.data_ptr(), tensor.shape, tensor.stride()
