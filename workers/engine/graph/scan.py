"""Graphs inside of a graph: torch's scan and cond, and plain functions that are the same, faster to train."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer

SCAN = torch.ops.higher_order.scan
COND = torch.ops.higher_order.cond

Body = Callable[..., Sequence[Any]]
"""One step: from the carried values, the slices of what is run over and what every step reads, each spread
out, to the values carried on and what the step emits."""


def loop(
    body: Body, init: Sequence[Tensor], xs: Sequence[Tensor], additional_inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """What scan computes: `body` over the first axis of `xs`; the last carried values, and what the steps
    emitted, stacked.

    In torch 2.13 the gradient of scan is traced anew at every call; this one is autograd's own.
    """
    carried, emitted = list(init), []
    for slices in zip(*(x.unbind(0) for x in xs), strict=True):
        results = body(*carried, *slices, *additional_inputs)
        carried = list(results[: len(carried)])
        emitted.append(results[len(carried) :])
    return (*carried, *map(torch.stack, zip(*emitted, strict=True)))


def choose(predicate: Any, yes: Body, no: Body, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What cond computes: one of two graphs of what both read."""
    return tuple((yes if predicate else no)(*operands))


PLAIN = {SCAN: loop, COND: choose}
"""The plain function of each."""


def insert(
    module: GraphModule, body: Body, init: Sequence[Node], xs: Sequence[Node], weights: Sequence[Node]
) -> list[Node]:
    """Insert a scan over the first axis of `xs`; return its results as `loop` has them.

    `body` is called once, with proxies: it may only call operators. What it returns must not be one of its
    arguments, nor the same value twice.
    """
    step, results = _graph(body, len(init) + len(xs) + len(weights))
    name = _free_name(module)
    module.add_module(name, step)
    arguments = (module.graph.get_attr(name), list(init), list(xs), tuple(weights))
    node = module.graph.call_function(SCAN, arguments)
    return [module.graph.call_function(operator.getitem, (node, place)) for place in range(results)]


def _graph(body: Body, count: int) -> tuple[GraphModule, int]:
    graph = Graph()
    tracer = GraphAppendingTracer(graph)
    results = body(*(Proxy(graph.placeholder(f"arg{place}"), tracer) for place in range(count)))
    graph.output([result.node for result in results])
    return GraphModule(torch.nn.Module(), graph), len(results)


def _free_name(module: GraphModule) -> str:
    place = 0
    while hasattr(module, f"scan_combine_graph_{place}"):
        place += 1
    return f"scan_combine_graph_{place}"
