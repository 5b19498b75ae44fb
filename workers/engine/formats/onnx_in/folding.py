"""What a graph computes from constants alone is computed once; what nothing reads is left out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from workers.engine.admit.onnx_model import Graph, Node
from workers.engine.errors import Rejected
from workers.engine.formats.onnx_in.constants import Constants
from workers.engine.formats.onnx_in.registry import OPERATORS, Call
from workers.engine.formats.onnx_in.values import Host, kept
from workers.engine.formats.reason import reason

CONTROL = frozenset({"If", "Scan"})
"""Operators that hold graphs, which the interpreter runs."""
_NEVER = frozenset({"LSTM", "GRU", "RNN"})  # of constants alone: nobody has that, and it may be long


def fold(graph: Graph, opset: int, constants: Constants) -> Graph:
    """The graph without what follows from constants alone: that is put into `constants`.

    The branch of an `If` whose condition is constant takes its place. Raises `Rejected`
    (`unsupported_operator`), naming every operator that is not understood.
    """
    graph = replace(graph, nodes=tuple(_live(graph)))
    for name, stored in graph.constants.items():
        constants.load(name, stored)
    nodes: list[Node] = []
    unknown: Counter[str] = Counter()
    for node in graph.nodes:
        nodes.extend(_folded(node, opset, constants, unknown))
    if unknown:
        raise UnknownOperators(unknown)
    return replace(graph, nodes=tuple(nodes))


def _folded(node: Node, opset: int, constants: Constants, unknown: Counter[str]) -> Iterator[Node]:
    """What remains of a node."""
    if node.operator == "If":
        yield from _chosen(node, opset, constants, unknown)
    elif node.operator in CONTROL:
        yield _with_folded_graphs(node, opset, constants, unknown)
    elif node.operator not in OPERATORS or node.operator.islower():
        unknown[node.operator] += 1
    elif node.operator in _NEVER or not _computed(node, opset, constants):
        yield node


def _chosen(node: Node, opset: int, constants: Constants, unknown: Counter[str]) -> Iterator[Node]:
    """The branch that is taken where the condition is constant; else the node, its branches folded."""
    condition = constants.values.get(node.inputs[0])
    branches = {key: value for key, value in node.attributes.items() if isinstance(value, Graph)}
    if set(branches) != {"then_branch", "else_branch"}:
        raise Rejected("malformed", f"{node} does not have two branches.")
    if isinstance(condition, Host) and condition.array.size == 1:
        branch = branches["then_branch" if condition.array.flat[0] else "else_branch"]
        branch = replace(branch, nodes=tuple(_live(branch)))
        for name, stored in branch.constants.items():
            constants.load(name, stored)
        for inner in branch.nodes:
            yield from _folded(inner, opset, constants, unknown)
        for source, target in zip(branch.outputs, node.outputs, strict=True):
            yield from _folded(
                Node("Identity", node.name, (source,), (target,), {}), opset, constants, unknown
            )
        return
    yield _with_folded_graphs(node, opset, constants, unknown)


def _with_folded_graphs(node: Node, opset: int, constants: Constants, unknown: Counter[str]) -> Node:
    attributes = dict(node.attributes)
    for key, value in node.attributes.items():
        if isinstance(value, Graph):
            try:
                attributes[key] = fold(value, opset, constants)
            except UnknownOperators as found:
                unknown.update(found.operators)
    return replace(node, attributes=attributes)


def _computed(node: Node, opset: int, constants: Constants) -> bool:
    """Compute a node's outputs now, if its inputs are constant."""
    if not all(not name or name in constants.values for name in node.inputs) or not any(node.outputs):
        return False
    inputs = [constants.values[name] if name else None for name in node.inputs]
    with blamed(node), torch.no_grad():
        result = OPERATORS[node.operator].function(Call(node, opset), *inputs)
    for name, value in zip(
        node.outputs, result if isinstance(result, tuple | list) else [result], strict=False
    ):
        constants.values[name] = kept(value) if isinstance(value, Tensor) else value
        _remember(node, name, constants)
    return True


def _remember(node: Node, name: str, constants: Constants) -> None:
    """Where a constant came from, and what it is the transpose of."""
    sources = [source for source in node.inputs if isinstance(constants.values.get(source), Tensor)]
    if sources:
        constants.origins[name] = constants.origins.get(sources[0], sources[0])
    value = constants.values[name]
    if (
        node.operator == "Transpose"
        and isinstance(value, Tensor)
        and value.ndim == 2
        and node.attributes.get("perm", (1, 0)) == (1, 0)
    ):
        constants.transposed[name] = node.inputs[0]


def _live(graph: Graph) -> Sequence[Node]:
    """The nodes that an output depends on, in order."""
    wanted, live = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            live.append(node)
            wanted.update(node.inputs)
            for inner in node.subgraphs:
                wanted.update(reads(inner))
    return live[::-1]


def reads(graph: Graph) -> Iterator[str]:
    """The values that a graph reads anywhere, its own among them."""
    yield from graph.outputs
    for node in graph.nodes:
        yield from node.inputs
        for inner in node.subgraphs:
            yield from reads(inner)


@contextmanager
def blamed(node: Node) -> Iterator[None]:
    """While this lasts, whatever fails on operands that make no sense to it is the rejection of this node."""
    try:
        yield
    except Rejected:
        raise
    except Exception as error:
        raise Rejected(
            "cannot_trace",
            f"Torch cannot compute {node}: {reason(error)}",
            hint="Check that the model runs in ONNX Runtime for inputs of several sizes. Declare axes that "
            "do not vary with their lengths: python -m onnxruntime.tools.make_dynamic_shape_fixed.",
            layer=node.name or None,
        ) from error


class UnknownOperators(Rejected):
    """Operators that are not understood, and how often each occurs."""

    def __init__(self, operators: Counter[str]) -> None:
        self.operators = operators
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(operators.items()))
        super().__init__(
            "unsupported_operator",
            f"The model has operators that are not supported: {listed}.",
            hint="docs/onnx.md lists those that are. Upload quantised models as they were before.",
        )
