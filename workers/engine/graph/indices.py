"""Which inputs of a network are indices into a table, read from the graph."""

from collections.abc import Iterator

import torch
from torch.fx import Node

from workers.engine.graph.network import Network, call_nodes
from workers.engine.graph.surgery import arguments, tensor_of

aten = torch.ops.aten
# Whatever they give out holds every value they took in; a slice would not.
_HANDS_ON = {
    aten._to_copy.default,
    aten.alias.default,
    aten.clone.default,
    aten.expand.default,
    aten.flatten.using_ints,
    aten.permute.default,
    aten.reshape.default,
    aten.squeeze.dim,
    aten.t.default,
    aten.to.dtype,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
}


def table_lengths(network: Network) -> dict[str, int]:
    """By input name: how many rows the shortest table has that an embedding looks the input up in.

    All of the input's values must lie in 0 … length − 1. Casts, copies and changes of shape are looked
    through.
    """
    names = {
        node: spec.name
        for spec, node in zip(network.inputs, network.module.graph.find_nodes(op="placeholder"), strict=True)
    }
    lengths: dict[str, int] = {}
    for source, length in _lookups(network):
        if source in names:
            name = names[source]
            lengths[name] = min(length, lengths.get(name, length))
    return lengths


def _lookups(network: Network) -> Iterator[tuple[Node, int]]:
    """Where the indices of every embedding come from, and how long its table is."""
    for node in call_nodes(network.module):
        if node.target is aten.embedding.default:
            values = arguments(node)
            if values["weight"].op == "get_attr":
                yield _source(values["indices"]), len(tensor_of(network.module, values["weight"]))


def _source(node: Node) -> Node:
    while node.target in _HANDS_ON:
        node = node.all_input_nodes[0]
    return node
