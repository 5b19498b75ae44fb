"""Calls that multiply by stored weights become the calls of torch in which layers are looked for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workers.engine.admit.onnx_model import Node
from workers.engine.formats.onnx_in.constants import Constants
from workers.engine.formats.onnx_in.operators.recurrent import BIASES
from workers.engine.formats.onnx_in.registry import Call

Rewrite = Callable[[Call, Constants], Node]

_GATES = {
    "LSTM": (4, [0, 2, 3, 1]),  # i o f c → i f g o
    "GRU": (3, [1, 0, 2]),  # z r h → r z n
    "RNN": (1, [0]),
}
_ACTIVATIONS = {
    "LSTM": (("Sigmoid", "Tanh", "Tanh"),),
    "GRU": (("Sigmoid", "Tanh"),),
    "RNN": (("Tanh",), ("Relu",)),
}


def rewrite(node: Node, opset: int, constants: Constants) -> Node:
    """`node` with its weights as parameters of the network; unchanged where it has none."""
    function = _REWRITES.get(node.operator)
    return node if function is None else function(Call(node, opset), constants)


def _convolution(call: Call, constants: Constants) -> Node:
    return _stored(call, constants, {1: "weight", 2: "bias"})


def _normalisation(call: Call, constants: Constants) -> Node:
    return _stored(call, constants, {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"})


def _slopes(call: Call, constants: Constants) -> Node:
    return _stored(call, constants, {1: "weight"})


def _stored(call: Call, constants: Constants, places: Mapping[int, str]) -> Node:
    """The call with those of its inputs that are constants as they are, under the names of a module's."""
    inputs = list(call.node.inputs)
    found = {
        place: tensor
        for place in places
        if place < len(inputs) and (tensor := constants.tensor(inputs[place])) is not None
    }
    if 1 not in found:
        return call.node
    (weight,) = constants.weights(inputs[1], "as stored", _who(call), {"weight": found.pop(1)})
    for place, tensor in found.items():
        learned = place < 3  # what follows are running statistics
        inputs[place] = constants.beside(weight, inputs[place], places[place], tensor, learned=learned)
    inputs[1] = weight
    return replace(call.node, inputs=tuple(inputs))


def _matmul(call: Call, constants: Constants) -> Node:
    """x W as a linear layer by Wᵀ, and by what W is the transpose of where it was made of it."""
    x, matrix = call.node.inputs
    weight = constants.tensor(matrix)
    if weight is None or weight.ndim != 2 or x in constants.values or not weight.is_floating_point():
        return call.node
    (name,) = _matrix(call, constants, matrix, weight.t())
    return replace(call.node, operator="linear", inputs=(x, name))


def _gemm(call: Call, constants: Constants) -> Node:
    x, matrix, *rest = call.node.inputs
    weight, bias = constants.tensor(matrix), constants.tensor(rest[0]) if rest and rest[0] else None
    if weight is None or weight.ndim != 2 or call.get("transA", 0) or (rest and rest[0] and bias is None):
        return call.node
    if bias is not None and bias.numel() not in (1, bias.shape[-1] if bias.ndim else 1):
        return call.node
    outputs = weight.shape[0] if call.get("transB", 0) else weight.shape[1]
    scaled = call.get("alpha", 1.0)
    how = f"alpha {scaled}"
    if call.get("transB", 0) and scaled == 1:
        (name,) = constants.weights(matrix, "as stored", _who(call), {"weight": weight})
    elif scaled == 1:
        (name,) = _matrix(call, constants, matrix, weight.t())
    else:
        turned = weight if call.get("transB", 0) else weight.t()
        (name,) = constants.weights(matrix, how, _who(call), {"weight": scaled * turned})
    if bias is None or call.get("beta", 1.0) == 0:
        return replace(call.node, operator="linear", inputs=(x, name))
    offset = (call.get("beta", 1.0) * bias).reshape(-1).expand(outputs).clone()
    beside = constants.beside(name, rest[0], "bias", offset)
    return replace(call.node, operator="linear", inputs=(x, name, beside))


def _matrix(call: Call, constants: Constants, name: str, transposed: Tensor) -> list[str]:
    source = constants.transposed.get(name)
    if source is not None:
        return constants.weights(source, "as stored", _who(call), {"weight": transposed})
    return constants.weights(name, "transposed", _who(call), {"weight": transposed})


def _gather(call: Call, constants: Constants) -> Node:
    """Rows of a stored matrix, by indices from outside: an embedding."""
    table, indices = call.node.inputs
    weight = constants.tensor(table)
    plain = weight is not None and weight.ndim == 2 and weight.is_floating_point()
    if weight is None or not plain or indices in constants.values or call.get("axis", 0) != 0:
        return call.node
    (name,) = constants.weights(table, "as stored", _who(call), {"weight": weight})
    return replace(call.node, operator="embedding", inputs=(indices, name))


def _recurrent(call: Call, constants: Constants) -> Node:
    kind = call.node.operator
    x, inputs, states, *rest = [*call.node.inputs, *[""] * 8][:8]
    bias, lengths, *firsts = rest
    W, R = constants.tensor(inputs), constants.tensor(states)
    B = constants.tensor(bias) if bias else None
    if W is None or R is None or (bias and B is None):
        raise call.unsupported("its weights are computed from data")
    _check(call, lengths, firsts[2] if kind == "LSTM" else "")
    names = constants.weights(inputs, f"{kind} {states} {bias}", _who(call), _torch_weights(kind, W, R, B))
    given = (x, firsts[0], firsts[1]) if kind == "LSTM" else (x, firsts[0])
    attributes: dict[str, Any] = {**call.node.attributes, BIASES: int(B is not None)}
    return replace(call.node, operator=kind.lower(), inputs=(*given, *names), attributes=attributes)


def _check(call: Call, lengths: str, peepholes: str) -> None:
    kind = call.node.operator
    if lengths:
        raise call.unsupported("sequences of different lengths (sequence_lens)")
    if peepholes or call.get("input_forget", 0):
        raise call.unsupported("peepholes or coupled gates")
    if call.maybe("clip") is not None:
        raise call.unsupported("clip")
    if kind == "GRU" and not call.get("linear_before_reset", 0):
        raise call.unsupported("linear_before_reset = 0, which torch's GRU does not compute")
    call.expect("direction", "forward", "reverse", "bidirectional", default="forward")
    directions = 2 if call.get("direction", "forward") == "bidirectional" else 1
    names: tuple[str, ...] = call.get("activations", ())
    if names and names not in [accepted * directions for accepted in _ACTIVATIONS[kind]]:
        raise call.unsupported(f"the activations {', '.join(names)}")


def _torch_weights(kind: str, W: Tensor, R: Tensor, B: Tensor | None) -> dict[str, Tensor]:
    """Each direction's weights and biases as torch has them: gates in torch's order.

    `W` is (directions, gates · H, inputs), `R` (directions, gates · H, H), `B` (directions, 2 · gates · H).
    """
    gates, order = _GATES[kind]
    found: dict[str, Tensor] = {}
    for direction, end in zip(range(W.shape[0]), ("", "_reverse"), strict=False):
        parts = {"weight_ih_l0": W[direction], "weight_hh_l0": R[direction]}
        if B is not None:
            parts["bias_ih_l0"], parts["bias_hh_l0"] = B[direction].chunk(2)
        for name, tensor in parts.items():
            chunks = tensor.chunk(gates)
            found[name + end] = torch.cat([chunks[place] for place in order]).clone()
    return found


def _who(call: Call) -> tuple[str, str]:
    return call.node.name, call.node.operator


_REWRITES: dict[str, Rewrite] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "BatchNormalization": _normalisation,
    "InstanceNormalization": _normalisation,
    "LayerNormalization": _normalisation,
    "GroupNormalization": _normalisation,
    "RMSNormalization": _slopes,
    "PRelu": _slopes,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
REWRITTEN = frozenset(_REWRITES)
"""Operators whose weights become parameters."""
