"""A part of a graph on its own, in several copies side by side: what forms of a layer are timed in."""

from collections.abc import Collection, Mapping
from operator import getitem
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from workers.engine.graph import surgery
from workers.engine.graph.network import Input, Network
from workers.engine.graph.shapes import shapes

COPY = "copy_{}"
"""The module that holds the tensors of one copy, under their names in the network."""


def excerpt(network: Network, first: Collection[Node], copies: int) -> Network:
    """A network that computes some calls of another one `copies` times, each with weights of its own.

    Values that the calls take from elsewhere are its inputs, for batch 1, shared by all copies; what others
    would take from them are its outputs, those of one copy after another.

    Args:
        network: read only.
        first: the calls. What lies between them, and the items of what they return, come along.

    Raises:
        KeyError: a value from elsewhere is no tensor.
    """
    nodes = _closed(network, first)
    module = GraphModule(nn.Module(), Graph())
    sizes = shapes(network)
    outside = dict.fromkeys(
        source
        for node in nodes
        for source in node.all_input_nodes
        if source not in nodes and source.op != "get_attr"
    )
    inputs = [Input(node.name, node.meta["val"].dtype, sizes[node.name]) for node in outside]
    entries = {node: module.graph.placeholder(node.name) for node in outside}
    outputs = [
        value
        for place in range(copies)
        for value in _copy(network, module, nodes, entries, COPY.format(place))
    ]
    module.graph.output(tuple(outputs))
    module.recompile()
    return Network(module, tuple(inputs))


def _closed(network: Network, first: Collection[Node]) -> dict[Node, None]:
    """The calls, what lies on a way from one to another, and the items of what they return, in order."""
    order = list(network.module.graph.nodes)
    after: set[Node] = set()
    for node in order:
        if node in first or any(source in after for source in node.all_input_nodes):
            after.add(node)
    before: set[Node] = set()
    for node in reversed(order):
        if node in first or any(user in before for user in node.users):
            before.add(node)
    within = [node for node in order if node in after and node in before]
    items = {user for node in within for user in node.users if user.target is getitem}
    return dict.fromkeys(node for node in order if node in items or node in within)


def _copy(
    network: Network,
    module: GraphModule,
    nodes: Mapping[Node, None],
    entries: Mapping[Node, Node],
    prefix: str,
) -> list[Node]:
    made: dict[Node, Any] = dict(entries)
    held: dict[tuple[int, Any], str] = {}  # a tied weight stays one tensor

    def read(source: Node) -> Node:
        if source not in made:
            tensor = surgery.tensor_of(network.module, source)
            path = held.setdefault((tensor.data_ptr(), tensor.shape), f"{prefix}.{source.target}")
            if path == f"{prefix}.{source.target}":
                surgery.store(module, path, tensor)
            made[source] = module.graph.get_attr(path)
            made[source].meta = dict(source.meta)
        return made[source]  # type: ignore[no-any-return]

    for node in nodes:
        args, kwargs = map_arg((node.args, dict(node.kwargs)), read)
        made[node] = module.graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]
        made[node].meta = dict(node.meta)
    return [
        made[node]
        for node in nodes
        if isinstance(node.meta.get("val"), Tensor) and not all(user in nodes for user in node.users)
    ]
