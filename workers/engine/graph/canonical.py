"""The form in which layers are looked for: a call for each recurrent layer, products by stored matrices."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.network import Network, call_nodes, trace
from workers.engine.graph.products import straighten, with_transposed_weights
from workers.engine.graph.recurrent import RECURRENT

aten = torch.ops.aten


def canonicalise(network: Network) -> Network:
    """The same network, computing the same, with every stack of recurrent layers as a chain of single ones,
    and every product by a transposed weight as one by the weight itself.

    A bidirectional layer stays one call; what a stack drops between its layers becomes dropout calls, its
    initial states are sliced and its last states concatenated where anything reads them. Parameters keep
    their names. `network` is edited in place and must not be used any more.
    """
    stacks = [
        node
        for node in call_nodes(network.module)
        if node.target in RECURRENT and surgery.arguments(node)["num_layers"] > 1
    ]
    products = with_transposed_weights(network.module)
    if not stacks and not products:
        return network
    for node in stacks:
        _unstack(network.module, node)
    for node in products:
        straighten(network.module, node)
    surgery.prune(network.module)
    return trace(network.module, network.inputs, network.signature)


def _unstack(module: GraphModule, node: Node) -> None:
    with module.graph.inserting_before(node):
        results = list(_layers(module, node))
        sequence = results[-1][0]
        states = [
            surgery.call(module, aten.cat.default, list(last))
            for last in list(zip(*results, strict=True))[1:]
        ]
    for use in list(node.users):  # what a trace reads of several results are items
        use.replace_all_uses_with([sequence, *states][use.args[1]])  # type: ignore[index]
        module.graph.erase_node(use)
    module.graph.erase_node(node)


def _layers(module: GraphModule, node: Node) -> Iterator[list[Node]]:
    """The results of each layer's own call: its sequence, and its last states."""
    values = surgery.arguments(node)
    states = values["hx"] if isinstance(values["hx"], list | tuple) else [values["hx"]]
    directions = 2 if values["bidirectional"] else 1
    params = _chunks(values["params"], values["num_layers"])
    x = values["input"]
    for layer, own in enumerate(params):
        if layer and values["dropout"]:
            x = surgery.call(module, aten.dropout.default, x, values["dropout"], values["train"])
        begin, end = layer * directions, (layer + 1) * directions
        firsts = [surgery.call(module, aten.slice.Tensor, state, 0, begin, end) for state in states]
        hx = firsts if isinstance(values["hx"], list | tuple) else firsts[0]
        single = surgery.recall(module, node, input=x, hx=hx, params=own, num_layers=1, dropout=0.0)
        results = [module.graph.call_function(operator.getitem, (single, i)) for i in range(1 + len(states))]
        x = results[0]
        yield results


def _chunks(items: list[Any], count: int) -> list[list[Any]]:
    size = len(items) // count
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
