"""An admitted graph as a module that torch.export can trace."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from workers.engine.admit.onnx_model import SEPARATOR, Graph, Node, OnnxModel
from workers.engine.errors import Rejected
from workers.engine.formats.onnx_in import layers
from workers.engine.formats.onnx_in.constants import Constants
from workers.engine.formats.onnx_in.folding import CONTROL, blamed, fold, reads
from workers.engine.formats.onnx_in.operators.recurrent import FLAT
from workers.engine.formats.onnx_in.registry import OPERATORS, Call
from workers.engine.formats.onnx_in.scan import scan
from workers.engine.formats.onnx_in.values import MOST_HOST, Host, Value, as_tensor, host

_LEARNED_BY = frozenset({"Add", "Sub", "Mul", "Div", "MatMul", "Gemm", "Einsum", "PRelu", *layers.REWRITTEN})
"""Operators whose operands, where they are constants of several numbers, were learned."""

_KNOWN = {"Resize": (1, 2, 3), "Upsample": (1,), "OneHot": (1, 2), "Range": (0, 1, 2)}
"""Inputs that must be known while the graph is traced, though they are no sizes."""

Environment = dict[str, Value]


def interpreter(model: OnnxModel, names: Sequence[str], seen: dict[str, Tensor] | None = None) -> nn.Module:
    """A module in evaluation mode whose forward makes the graph's calls one by one.

    `names` are what the parameters of forward are called, in the order of the graph's inputs; `seen`
    is filled with all tensors of every run. Raises `Rejected` (`unsupported_operator`), naming every operator
    that is not understood.
    """
    constants = Constants()
    graph = _with_layers(fold(model.graph, model.opset, constants), model.opset, constants)
    _keep(graph, constants)
    root = _registered(constants)
    held = [(name, attrgetter(path)) for name, path in constants.paths.items()]
    used = set(reads(graph)) - constants.paths.keys()
    known = {name: value for name, value in constants.values.items() if name in used}
    inputs = [spec.name for spec in graph.inputs]

    def forward(*given: Tensor) -> Any:
        values: Environment = {**known, **{name: read(root) for name, read in held}}
        values.update(zip(inputs, given, strict=True))
        _run(graph, model.opset, values)
        if seen is not None:
            seen.update({name: as_tensor(value) for name, value in values.items()})
        outputs = tuple(as_tensor(values[name]) for name in graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    # torch.export names the graph's inputs after the signature; no code is generated for it.
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    root.forward = forward
    return root.eval()


def _run(graph: Graph, opset: int, values: Environment) -> None:
    for node in graph.nodes:
        with blamed(node):
            results = _results(node, opset, values)
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                values[name] = value


def _results(node: Node, opset: int, values: Environment) -> Sequence[Value]:
    if node.operator in CONTROL:
        return _CONTROLS[node.operator](Call(node, opset), values)
    inputs = [values[name] if name else None for name in node.inputs]
    result = OPERATORS[node.operator].function(Call(node, opset), *inputs)
    return result if isinstance(result, tuple | list) else (result,)


def _branch(call: Call, values: Environment) -> Sequence[Value]:
    """The branch of an `If` whose condition follows from shapes."""
    condition = values[call.node.inputs[0]]
    if not isinstance(condition, Host):
        raise Rejected(
            "data_dependent",
            f"The condition of {call.node} depends on the data that the model is given.",
            hint="Make a constant of the input that chooses the branch, and upload the model again.",
            layer=call.node.name or None,
        )
    graph = call.graph("then_branch" if condition.array.flat[0] else "else_branch")
    _run(graph, call.opset, values)
    return [values[name] for name in graph.outputs]


def _loop(call: Call, values: Environment) -> Sequence[Value]:
    return scan(call, values, _run)


_CONTROLS: Mapping[str, Callable[[Call, Environment], Sequence[Value]]] = {"If": _branch, "Scan": _loop}


def _with_layers(graph: Graph, opset: int, constants: Constants) -> Graph:
    """The graph with its layers as torch's calls, in its branches too."""
    readers = Counter(reads(graph))
    nodes: list[Node] = []
    made: dict[str, int] = {}
    for node in graph.nodes:
        if node.operator in CONTROL:
            inner = {
                key: _with_layers(value, opset, constants) if isinstance(value, Graph) else value
                for key, value in node.attributes.items()
            }
            nodes.append(replace(node, attributes=inner))
            continue
        with blamed(node):  # nobody has counted its operands
            if not (node.operator == "Add" and _take_bias(node, nodes, made, readers, constants)):
                nodes.append(layers.rewrite(_on_host(node, constants), opset, constants))
        made.update({name: len(nodes) - 1 for name in node.outputs if nodes[-1].outputs == node.outputs})
    return replace(graph, nodes=_flattened(tuple(nodes), graph, constants))


def _on_host(node: Node, constants: Constants) -> Node:
    """The node with the numbers that it must know while it is traced on the host, however many there are."""
    inputs = list(node.inputs)
    for place in _KNOWN.get(node.operator, ()):
        value = constants.values.get(inputs[place]) if place < len(inputs) else None
        if isinstance(value, Tensor) and value.numel() <= MOST_HOST:
            name = f"{SEPARATOR}known {inputs[place]}"
            constants.values[name] = host(value.reshape(-1).tolist(), value.dtype, tuple(value.shape))
            inputs[place] = name
    return replace(node, inputs=tuple(inputs))


def _take_bias(
    node: Node, nodes: list[Node], made: dict[str, int], readers: Counter[str], constants: Constants
) -> bool:
    """Give what an Add adds to the linear layer before it, if nothing else reads what that gives out."""
    for x, y in (node.inputs, node.inputs[::-1]):
        bias = constants.tensor(y)
        if bias is None or bias.ndim != 1 or x not in made or readers[x] != 1:
            continue
        linear = nodes[made[x]]
        fits = linear.operator == "linear" and len(linear.inputs) == 2
        if fits and constants.tensors[constants.paths[linear.inputs[1]]].shape[0] == bias.numel():
            name = constants.beside(linear.inputs[1], y, "bias", bias)
            nodes[made[x]] = replace(linear, inputs=(*linear.inputs, name), outputs=node.outputs)
            made.update(dict.fromkeys(node.outputs, made[x]))
            return True
    return False


def _flattened(nodes: tuple[Node, ...], graph: Graph, constants: Constants) -> tuple[Node, ...]:
    """Recurrent calls in one direction without the axis for directions where every reader drops it: what
    feeds a layer is then the sequence of the one before, and nothing in between."""
    by_reader: dict[str, list[Node]] = {}
    for node in nodes:
        for name in {*node.inputs, *(name for inner in node.subgraphs for name in reads(inner))}:
            by_reader.setdefault(name, []).append(node)
    flat: set[str] = set()
    for node in nodes:
        sequence = node.outputs[0] if node.outputs else ""
        if node.operator not in ("lstm", "gru", "rnn") or not sequence or sequence in graph.outputs:
            continue
        plain = node.attributes.get("direction", "forward") != "bidirectional" and not node.attributes.get(
            "layout"
        )
        if plain and all(_drops_directions(reader, constants) for reader in by_reader.get(sequence, [])):
            flat.add(sequence)
    return tuple(_flat(node, flat) for node in nodes)


def _drops_directions(node: Node, constants: Constants) -> bool:
    axes = node.attributes.get("axes")
    if len(node.inputs) > 1 and node.inputs[1] in constants.values:
        axes = tuple(as_tensor(constants.values[node.inputs[1]]).reshape(-1).tolist())
    return node.operator == "Squeeze" and axes == (1,)


def _flat(node: Node, flat: set[str]) -> Node:
    if node.outputs and node.outputs[0] in flat:
        return replace(node, attributes={**node.attributes, FLAT: 1})
    if node.operator == "Squeeze" and node.inputs[0] in flat:
        return Node("Identity", node.name, node.inputs[:1], node.outputs, {})
    return node


def _keep(graph: Graph, constants: Constants) -> None:
    """Make attributes of the tensors that are used as they are."""
    for node in graph.nodes:
        for name in node.inputs:
            if name in constants.values:
                constants.keep(name, learned=node.operator in _LEARNED_BY)
        for inner in node.subgraphs:
            _keep(inner, constants)
    for name in graph.outputs:
        if name in constants.values:
            constants.keep(name, learned=False)


def _registered(constants: Constants) -> nn.Module:
    root = nn.Module()
    for path, tensor in constants.tensors.items():
        *containers, name = path.split(".")
        module = root
        for part in containers:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if path in constants.learned and tensor.is_floating_point():
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)
    return root
