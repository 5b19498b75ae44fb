"""One step of each recurrent cell, with any map in the place of its hidden-to-hidden matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workers.engine.graph.scan import Body
from workers.engine.layers.recurrent.maps import GateMap

aten = torch.ops.aten
CELLS = {
    aten.lstm.input: "lstm",
    aten.gru.input: "gru",
    aten.rnn_tanh.input: "tanh",
    aten.rnn_relu.input: "relu",
}
GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}

Recur = Callable[[Any], Any]
"""Adds what the hidden state contributes to gates that are given, or to nothing."""


@dataclass(frozen=True)
class Recurrence:
    """How the hidden state h reaches the gates: through `map`, after a projection p = P h if `project` names
    the parameter P (r, H). `emits_projection`: the loop hands p of every step to what follows, not h."""

    map: GateMap
    project: str | None = None
    emits_projection: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The parameters that a step reads."""
        return (*(() if self.project is None else (self.project,)), *self.map.paths)


def carried(cell: str, recurrence: Recurrence) -> list[str]:
    """What a step hands to the next: h, p where there is a projection, and c of an LSTM."""
    return ["h", *([] if recurrence.project is None else ["p"]), *(["c"] if cell == "lstm" else [])]


def step(cell: str, hidden: int, recurrence: Recurrence) -> Body:
    """The body of the loop: (carried values, the inputs' share of the gates (N, g·H), the parameters of the
    recurrence, and a GRU's hidden bias (3·H,) where it has one) to the carried values and what is emitted."""
    names = carried(cell, recurrence)

    def body(*values: Any) -> Sequence[Any]:
        state = dict(zip(names, values, strict=False))
        inputs, *parameters = values[len(names) :]
        project, parameters = (parameters[0], parameters[1:]) if "p" in state else (None, parameters)
        own, bias = parameters[: len(recurrence.map.paths)], parameters[len(recurrence.map.paths) :]

        def recur(addend: Any) -> Any:
            return recurrence.map.one_step(state.get("p", state["h"]), addend, *own)

        state |= _CELLS[cell](state, inputs, recur, hidden, *bias)
        if project is not None:
            state["p"] = aten.linear.default(state["h"], project)
        emitted = state["p" if recurrence.emits_projection else "h"]
        return [*(state[name] for name in names), aten.clone.default(emitted)]

    return body


def _lstm(state: dict[str, Any], inputs: Any, recur: Recur, hidden: int) -> dict[str, Any]:
    i, f, g, o = _parts(aten.split.Tensor(recur(inputs), hidden, 1), 4)
    kept = aten.mul.Tensor(aten.sigmoid.default(f), state["c"])
    c = aten.add.Tensor(kept, aten.mul.Tensor(aten.sigmoid.default(i), aten.tanh.default(g)))
    return {"h": aten.mul.Tensor(aten.sigmoid.default(o), aten.tanh.default(c)), "c": c}


def _gru(state: dict[str, Any], inputs: Any, recur: Recur, hidden: int, bias: Any = None) -> dict[str, Any]:
    """The reset gate acts on the hidden share of the new state, its bias included: h' = n + z (h − n)."""
    sizes = [2 * hidden, hidden]
    gates, new = _parts(aten.split_with_sizes.default(inputs, sizes, 1), 2)
    own_gates, own_new = _parts(aten.split_with_sizes.default(recur(bias), sizes, 1), 2)
    both = aten.sigmoid.default(aten.add.Tensor(gates, own_gates))
    r, z = _parts(aten.split.Tensor(both, hidden, 1), 2)
    n = aten.tanh.default(aten.add.Tensor(new, aten.mul.Tensor(r, own_new)))
    return {"h": aten.add.Tensor(n, aten.mul.Tensor(z, aten.sub.Tensor(state["h"], n)))}


def _tanh(_: dict[str, Any], inputs: Any, recur: Recur, __: int) -> dict[str, Any]:
    return {"h": aten.tanh.default(recur(inputs))}


def _relu(_: dict[str, Any], inputs: Any, recur: Recur, __: int) -> dict[str, Any]:
    return {"h": aten.relu.default(recur(inputs))}


def _parts(pieces: Any, count: int) -> list[Any]:
    return [pieces[place] for place in range(count)]


_CELLS: dict[str, Callable[..., dict[str, Any]]] = {"lstm": _lstm, "gru": _gru, "tanh": _tanh, "relu": _relu}
