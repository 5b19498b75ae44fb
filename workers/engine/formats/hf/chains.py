"""The factors of a layer as modules in a row, found in the graph that they are called in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.graph.network import call_nodes

aten = torch.ops.aten

# Which argument is the data and which the weight, whether modules have it transposed, and their type.
_CALLS = {
    aten.linear.default: ("input", "weight", False, "Linear"),
    aten.mm.default: ("self", "mat2", True, "Linear"),
    aten.matmul.default: ("self", "other", True, "Linear"),
    aten.addmm.default: ("mat1", "mat2", True, "Linear"),
    aten.embedding.default: ("indices", "weight", False, "Embedding"),
    **{
        target: ("input", "weight", False, f"Conv{axes}d")
        for axes in (1, 2, 3)
        for target in (getattr(aten, f"conv{axes}d").default, getattr(aten, f"conv{axes}d").padding)
    },
}
_GEOMETRY = ("stride", "padding", "dilation", "groups")
_VIEWS = frozenset({aten.view.default, aten.reshape.default})


@dataclass(frozen=True)
class Factor:
    """A module: its type in torch.nn, what it is made with but for the bias, and the path of its weight in
    the network."""

    type: str
    arguments: Mapping[str, Any]
    weight: str
    transposed: bool


Chain = tuple[Factor, ...]


def chains(module: GraphModule, weights: frozenset[str]) -> list[Chain]:
    """What the calls that read factors, stored at the paths `weights`, are in a row; equal rows once.

    Empty where some call is no module's, or something other than a change of shape lies between two.
    """
    calls = [node for node in call_nodes(module) if _reads(node) & weights]
    if not all(node.target in _CALLS for node in calls):
        return []
    before = {node: _before(node, frozenset(calls)) for node in calls}
    lasts = [node for node in calls if node not in before.values()]
    found = [tuple(_factor(module, node) for node in _row(node, before)) for node in lasts]
    whole = all({factor.weight for factor in chain} == weights for chain in found)
    unique = [chain for place, chain in enumerate(found) if chain not in found[:place]]
    return unique if whole else []


def weight_of(factor: Factor, module: GraphModule) -> Tensor:
    """The weight as the factor's module holds it."""
    stored = surgery.stored(module, factor.weight).detach()
    return stored.T if factor.transposed else stored


def _reads(node: Node) -> set[str]:
    return {str(read.target) for read in node.all_input_nodes if read.op == "get_attr"}


def _before(node: Node, calls: frozenset[Node]) -> Node | None:
    """The call whose output a call takes, where nothing else does."""
    value = surgery.arguments(node)[_CALLS[node.target][0]]
    while isinstance(value, Node) and value.target in _VIEWS and len(value.users) == 1:
        value = value.args[0]
    return value if value in calls and len(value.users) == 1 else None


def _row(node: Node, before: Mapping[Node, Node | None]) -> Sequence[Node]:
    row = [node]
    while (previous := before[row[0]]) is not None:
        row.insert(0, previous)
    return row


def _factor(module: GraphModule, node: Node) -> Factor:
    _, name, transposed, kind = _CALLS[node.target]
    values = surgery.arguments(node)
    path = str(values[name].target)
    shape = list(surgery.stored(module, path).shape)
    return Factor(
        kind, dict(_arguments(kind, shape[::-1] if transposed else shape, values)), path, transposed
    )


def _arguments(kind: str, shape: Sequence[int], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if kind == "Embedding":
        yield from zip(("num_embeddings", "embedding_dim"), shape, strict=True)
        return
    if kind == "Linear":
        yield from zip(("out_features", "in_features"), shape, strict=True)
        return
    yield from (("out_channels", shape[0]), ("in_channels", shape[1] * values["groups"]))
    yield "kernel_size", list(shape[2:])
    for name in _GEOMETRY:
        value = values[name]
        yield name, _whole(value, len(shape) - 2) if isinstance(value, list | tuple) else value


def _whole(values: Sequence[int], axes: int) -> list[int]:
    """One value for each axis, where a single one stands for all."""
    return list(values) if len(values) == axes else list(values) * axes
