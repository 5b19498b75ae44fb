"""Finding the layers of recurrent calls: every weight belongs to exactly one."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.layers.base import Layer, Site
from workers.engine.layers.dense import RecurrentLayer
from workers.engine.layers.recurrent.call import Call
from workers.engine.layers.recurrent.kinds import HiddenLayer, InputLayer

aten = torch.ops.aten


def recurrent_layers(
    module: GraphModule,
    nodes: Sequence[Node],
    sizes: Mapping[str, tuple[int, ...]],
    counted: Mapping[str, int],
    readers: Callable[[Node], int],
) -> dict[Node, list[Layer]]:
    """The layers of each recurrent call, by its node.

    `readers` tells how many calls read what a weight's node reads. A weight that multiplies the inputs
    belongs to the layer before it where that alone makes these inputs: both multiply the same states.
    """
    reasons = {node: _reason(module, node, readers) for node in nodes}
    calls = {
        node: Call(module, node, sizes[surgery.arguments(node)["input"].name])
        for node, reason in reasons.items()
        if reason is None
    }
    following = {node: _following(node, calls) for node in calls}
    taken = set(following.values())
    found: dict[Node, list[Layer]] = {}
    for node, reason in reasons.items():
        if reason is not None:
            found[node] = list(_dense(module, node, counted.get(node.name, 0), reason))
        else:
            found[node] = list(_layers(calls[node], calls[node] in taken, following[node]))
    return found


def _layers(call: Call, fed_by_another: bool, following: Call | None) -> Iterator[Layer]:
    if not fed_by_another:
        yield InputLayer(call)
    for direction in call.directions:
        yield HiddenLayer(direction, following)


def _following(node: Node, calls: Mapping[Node, Call]) -> Call | None:
    """The call that alone reads the sequence of this one, through dropout at most."""
    if surgery.arguments(node)["bidirectional"]:
        return None
    value = node
    while True:
        readers = [user for user in value.users if value is not node or user.args[1] == 0]
        if len(readers) != 1:
            return None
        [reader] = readers
        if reader in calls:
            values = surgery.arguments(reader)
            return calls[reader] if values["input"] is value and value not in _states(values["hx"]) else None
        if value is not node and reader.target is not aten.dropout.default:
            return None
        value = reader


def _states(hx: Node | Sequence[Node]) -> Sequence[Node]:
    return [hx] if isinstance(hx, Node) else hx


def _reason(module: GraphModule, node: Node, readers: Callable[[Node], int]) -> str | None:
    """Why a call must stay as it is, or None."""
    values = surgery.arguments(node)
    weights = values["params"]
    directions = 1 + bool(values["bidirectional"])
    if values["num_layers"] != 1:
        return "it is a stack of layers in one call"
    if len(weights) != directions * (4 if values["has_biases"] else 2):
        return "its hidden states are projected already"
    if not all(surgery.is_weight(module, weight) for weight in weights):
        return "its weights are computed or fixed"
    if any(readers(weight) > 1 for weight in weights):
        return "its weights are used by more than one call"
    if not all(surgery.is_finite(surgery.tensor_of(module, weight)) for weight in weights):
        return "its weights hold values that are not finite"
    return None


def _dense(module: GraphModule, node: Node, macs: int, reason: str) -> Iterator[Layer]:
    """One entry for the whole call, named after the first weight."""
    weights = [weight for weight in surgery.arguments(node)["params"] if surgery.is_weight(module, weight)]
    if weights:
        site = Site(module, node, weights[0], None, (), ())
        yield RecurrentLayer(site, weights, RECURRENT[node.target], macs, reason)  # type: ignore[index]
