"""Vanilla recurrent layers as ONNX's RNN: the exporter would unroll them, which fixes their length."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset20

op: Any = opset20  # its types know no traced values


def _translation(activation: str) -> Callable[..., Any]:
    def translate(  # noqa: PLR0913, PLR0917  # the operator's own arguments, by their own names
        input: Any,  # noqa: A002
        hx: Any,
        params: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,  # noqa: ARG001  # of training
        train: bool,  # noqa: ARG001
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        size = len(params) // num_layers
        x, last = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input, []
        for layer in range(num_layers):
            own = params[layer * size : (layer + 1) * size]
            directions = 2 if bidirectional else 1
            first = op.Slice(hx, [layer * directions], [(layer + 1) * directions], [0])
            x, state = _layer(x, first, own, has_biases, directions, activation)
            last.append(state)
        states = last[0] if num_layers == 1 else op.Concat(*last, axis=0)
        return op.Transpose(x, perm=[1, 0, 2]) if batch_first else x, states

    return translate


def _layer(
    x: Any, first: Any, params: Sequence[Any], has_biases: bool, directions: int, activation: str
) -> tuple[Any, Any]:
    """(steps, batch, directions · H), and the last states (directions, batch, H)."""
    size = len(params) // directions
    W, R = (_stacked([params[d * size + place] for d in range(directions)]) for place in (0, 1))
    inputs = [x, W, R]
    if has_biases:
        pairs = [op.Concat(params[d * size + 2], params[d * size + 3], axis=0) for d in range(directions)]
        inputs.append(_stacked(pairs))
    sequence, last = op.RNN(
        *inputs,
        initial_h=first,
        activations=[activation] * directions,
        direction="bidirectional" if directions == 2 else "forward",
        hidden_size=params[1].shape[1],
    )
    return op.Reshape(op.Transpose(sequence, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1])), last


def _stacked(tensors: Sequence[Any]) -> Any:
    """One axis more, for the directions."""
    return op.Concat(*(op.Unsqueeze(tensor, op.Constant(value_ints=[0])) for tensor in tensors), axis=0)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.rnn_tanh.input: _translation("Tanh"),
    torch.ops.aten.rnn_relu.input: _translation("Relu"),
}
