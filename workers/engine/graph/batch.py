"""Which axis of the inputs is the batch: the first, unless that is time, which something runs over."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from workers.engine.graph.recurrent import RECURRENT, bind
from workers.engine.graph.scan import SCAN

Symbols = frozenset[Any]


def batch_axis(module: GraphModule) -> int:
    """0, or 1 where recurrent calls or loops run over the first axis of the inputs.

    `module` is fresh from a trace: its nodes know the shapes of what they give. The first input of which the
    first axis is time or batch decides; where these lengths are fixed, one with the batch behind.
    """
    inputs = [shape for node in module.graph.find_nodes(op="placeholder") if len(shape := _shape(node)) > 1]
    runs = list(_runs(module))
    time, batch = (frozenset[Any]().union(*(run[place] for run in runs)) for place in (0, 1))
    for first, *_ in inputs:
        if first & (time ^ batch):
            return int(not first & batch)
    return int(any(second & (batch - time) for _, second, *_ in inputs))


def _runs(module: GraphModule) -> Iterator[tuple[Symbols, Symbols]]:
    """What the lengths of time and batch of every recurrent call and loop depend on."""
    for node in module.graph.nodes:
        if node.target in RECURRENT:
            bound = bind(node.target, node.args, node.kwargs)
            time, batch = _shape(bound["input"])[:2]
            yield (batch, time) if bound["batch_first"] else (time, batch)
        elif node.target is SCAN and len(shape := _shape(node.args[2][0])) > 1:
            yield shape[0], shape[1]


def _shape(node: Node) -> list[Symbols]:
    """The symbols in the length of every axis."""
    value = node.meta.get("val")
    return [_symbols(axis) for axis in value.shape] if isinstance(value, torch.Tensor) else []


def _symbols(axis: int | torch.SymInt) -> Symbols:
    return frozenset() if isinstance(axis, int) else frozenset(axis.node.expr.free_symbols)
