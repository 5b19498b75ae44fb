"""Finding the pairs of linear layers with one attention between them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import Node

from workers.engine.graph import surgery
from workers.engine.layers.attention import AttentionPair, Heads, QueryKeyPair, ValueOutputPair
from workers.engine.layers.base import Layer
from workers.engine.layers.matrix import LinearLayer

aten = torch.ops.aten
_COPIES = (aten.contiguous.default, aten.clone.default)
_VIEWS = (
    aten.view.default,
    aten.reshape.default,
    aten.unflatten.int,
    aten.flatten.using_ints,
    aten._unsafe_view.default,
)


def paired(layers: Sequence[Layer]) -> list[Layer]:
    """The same layers with every pair that an attention joins as one, in the place of its first.

    Pairs are of linear layers that each have a weight, and a call, of their own, with as many heads on either
    side, and nothing between them and the attention but the splitting of the heads: no rotary positions, no
    normalisation. One fused projection for queries, keys and values stays one linear layer.
    """
    linears = {
        layer.site.node: layer
        for layer in layers
        if isinstance(layer, LinearLayer) and layer.methods and len(layer.sites) == 1 and _owns_bias(layer)
    }
    attentions = {node: None for layer in layers for node in _attentions(layer.site.module)}
    found = [pair for node in attentions for pair in _pairs(node, linears)]
    firsts = {pair.site.node: pair for pair in found}
    seconds = {pair.second.node for pair in found}
    return [
        firsts.get(layer.site.node, layer) if layer.site.node in linears else layer
        for layer in layers
        if layer.site.node not in seconds
    ]


def _owns_bias(layer: LinearLayer) -> bool:
    return layer.site.bias is None or len(layer.site.bias.users) == 1


def _attentions(module: Any) -> Iterator[Node]:
    yield from module.graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default)


def _pairs(attention: Node, linears: dict[Node, LinearLayer]) -> Iterator[AttentionPair]:
    """The pairs around one attention."""
    values = surgery.arguments(attention)
    roles = [values[name] for name in ("query", "key", "value")]
    if values["enable_gqa"] or len(set(roles)) < len(roles):
        return
    query, key, value = (_heads(node, linears) for node in roles)
    if query and key and (query.number, query.size) == (key.number, key.size):
        first, second = linears[query.linear].site, linears[key.linear].site
        yield QueryKeyPair(first, second, query, key, attention)
    output = _output(attention, linears)
    if value and output:
        yield ValueOutputPair(linears[value.linear].site, linears[output].site, value, attention)


def _heads(node: Node, linears: dict[Node, LinearLayer]) -> Heads | None:
    """The linear call whose heads a node holds; None where anything else happened to them."""
    swap = _uncopied(node)
    split = _uncopied(swap.args[0]) if _swaps(swap) else None
    linear = _uncopied(split.args[0]) if split and split.target in _VIEWS else None
    if split is None or linear not in linears:
        return None
    *outer, count, size = _shape(split)
    if (
        len(outer) != 2
        or outer != _shape(linear)[:-1]
        or not all(len(each.users) == 1 for each in _between(node, linear))
    ):
        return None
    return Heads(linear, node, int(count), int(size))


def _output(attention: Node, linears: dict[Node, LinearLayer]) -> Node | None:
    """The linear call that takes an attention's heads side by side, and nothing else does."""
    chain = [attention]
    while chain[-1] not in linears:
        if len(chain[-1].users) != 1:
            return None
        [user] = chain[-1].users
        if not (user in linears or user.target in (*_COPIES, *_VIEWS) or _swaps(user)):
            return None
        chain.append(user)
    steps = [node for node in chain[1:-1] if node.target not in _COPIES]
    if len(steps) != 2 or not _swaps(steps[0]) or steps[1].target not in _VIEWS:
        return None
    joined = _shape(steps[1])[:-1] == _shape(steps[0])[:-2]
    return chain[-1] if joined and chain[-1].args[0] is chain[-2] else None


def _between(node: Node, linear: Node) -> Iterator[Node]:
    """From the heads back to their linear call."""
    while node is not linear:
        yield node
        node = node.args[0]  # type: ignore[assignment]
    yield linear


def _uncopied(node: Any) -> Node:
    while node.target in _COPIES:
        node = node.args[0]
    return node  # type: ignore[no-any-return]


def _swaps(node: Node) -> bool:
    """Whether a node swaps length and heads."""
    if node.target is aten.transpose.int:
        return sorted(axis % 4 for axis in node.args[1:]) == [1, 2]  # type: ignore[operator]
    return node.target is aten.permute.default and [axis % 4 for axis in node.args[1]] == [0, 2, 1, 3]  # type: ignore


def _shape(node: Node) -> list[str]:
    """The shape as traced: variable axes by their symbols, so that none is equal to another by accident."""
    return [str(size) for size in node.meta["val"].shape]
