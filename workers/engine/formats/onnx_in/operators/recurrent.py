"""Recurrent layers, by torch's whole operators over weights that `layers` put in torch's order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.engine.formats.onnx_in.registry import Call, operator
from workers.engine.formats.onnx_in.values import Value, as_tensor

FLAT = "flat"
"""The attribute of a call whose sequence has no axis for directions, since every reader would drop it."""
BIASES = "biases"
"""The attribute of a call whose weights include biases."""

_Run = Callable[..., Sequence[Tensor]]


@operator("lstm")
def lstm(call: Call, x: Value, h: Value | None, c: Value | None, *weights: Value) -> tuple[Tensor, ...]:
    """The sequence, the last hidden states and the last cells."""

    def run(values: Tensor, states: list[Tensor], *rest: Any) -> Sequence[Tensor]:
        return torch.lstm(values, states, *rest)

    return _recurrent(call, as_tensor(x), [h, c], [as_tensor(weight) for weight in weights], run)


@operator("gru")
def gru(call: Call, x: Value, h: Value | None, *weights: Value) -> tuple[Tensor, ...]:
    """The sequence and the last hidden states."""

    def run(values: Tensor, states: list[Tensor], *rest: Any) -> Sequence[Tensor]:
        return torch.gru(values, states[0], *rest)

    return _recurrent(call, as_tensor(x), [h], [as_tensor(weight) for weight in weights], run)


@operator("rnn")
def rnn(call: Call, x: Value, h: Value | None, *weights: Value) -> tuple[Tensor, ...]:
    """The sequence and the last hidden states."""
    names: tuple[str, ...] = call.get("activations", ("Tanh",))
    function = torch.rnn_relu if names[0] == "Relu" else torch.rnn_tanh

    def run(values: Tensor, states: list[Tensor], *rest: Any) -> Sequence[Tensor]:
        return function(values, states[0], *rest)

    return _recurrent(call, as_tensor(x), [h], [as_tensor(weight) for weight in weights], run)


_LIMITS = (
    "constant weights; whole sequences; torch's activations; no peepholes, no clip; "
    "GRU with linear_before_reset = 1"
)


@operator("LSTM", "GRU", "RNN", limits=_LIMITS)
def _of_data(call: Call, *_: Value) -> tuple[Tensor, ...]:
    raise call.unsupported("its weights are computed from data")


def _recurrent(
    call: Call, x: Tensor, states: Sequence[Value | None], weights: list[Tensor], run: _Run
) -> tuple[Tensor, ...]:
    """ONNX's outputs: (steps, directions, batch, H), and last states (directions, batch, H); with layout 1
    the batch comes first in all of them."""
    direction, batch_first = call.get("direction", "forward"), call.get("layout", 0) == 1
    directions = 2 if direction == "bidirectional" else 1
    hidden = weights[1].shape[1]
    values = x.transpose(0, 1) if batch_first else x
    values = values.flip([0]) if direction == "reverse" else values
    firsts = [_first(state, values, directions, hidden, batch_first) for state in states]
    biases = call.get(BIASES, 0) == 1
    sequence, *last = run(values, firsts, weights, biases, 1, 0.0, False, directions == 2, False)
    sequence = sequence.flip([0]) if direction == "reverse" else sequence
    if not call.get(FLAT, 0):
        split_up = sequence.reshape(*sequence.shape[:2], directions, hidden)
        sequence = split_up.transpose(0, 1) if batch_first else split_up.transpose(1, 2)
    return (sequence, *(state.transpose(0, 1) if batch_first else state for state in last))


def _first(state: Value | None, x: Tensor, directions: int, hidden: int, batch_first: bool) -> Tensor:
    if state is None:
        return x.new_zeros(directions, x.shape[1], hidden)
    return as_tensor(state).transpose(0, 1) if batch_first else as_tensor(state)
