"""A recurrent call and what becomes of it: torch's operator as long as it can be, then loops over time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer

from workers.engine.graph import scan, surgery
from workers.engine.layers.recurrent.cells import CELLS, GATES, Recurrence, carried, step
from workers.engine.layers.recurrent.maps import GateMap, MatrixMap

aten = torch.ops.aten


class Call:
    """One recurrent layer in one call, in one direction or two.

    Whatever its weights become, in whatever order: factors of the input weights alone leave the operator in
    place, with another input. Everything else opens it: into one call a direction, which makes what the
    inputs contribute to the gates at all steps, and one loop over time a direction.
    """

    def __init__(self, module: GraphModule, node: Node, input_shape: tuple[int, ...]) -> None:
        self.module = module
        self.node = node
        self.cell = CELLS[node.target]  # type: ignore[index]  # it is a recurrent call
        self.steps, self.batch = input_shape[1::-1] if self.batch_first else input_shape[:2]
        count = 1 + bool(surgery.arguments(node)["bidirectional"])
        self.directions = tuple(Direction(self, place, count) for place in range(count))

    @property
    def batch_first(self) -> bool:
        """Whether the batch is the first axis, not time."""
        return bool(surgery.arguments(self.node)["batch_first"])

    @property
    def gates(self) -> int:
        """Gates of the cell."""
        return GATES[self.cell]

    def feed(self, maps: Sequence[GateMap], project: str | None = None) -> None:
        """Let the input reach each direction's gates through its map; first, if it is given, through the
        projection P (r, n) that all directions share."""
        if not all(isinstance(each, MatrixMap) for each in maps):
            self.open()
        if project is not None:
            self._project(project)
        for direction, each in zip(self.directions, maps, strict=True):
            direction.feed(each)

    def _project(self, path: str) -> None:
        readers = [direction.inputs or self.node for direction in self.directions]
        with self.module.graph.inserting_before(readers[0]):
            x = surgery.arguments(readers[0])["input"]
            projected = surgery.call(self.module, aten.linear.default, x, self.module.graph.get_attr(path))
        for reader in readers:
            reader.update_arg(0, projected)

    def open(self) -> None:
        """Put dense loops in the place of the operator, if it is still there."""
        if self.directions[0].inputs is not None:
            return
        with self.module.graph.inserting_before(self.node):
            x = surgery.arguments(self.node)["input"]
            if self.batch_first:
                x = surgery.call(self.module, aten.transpose.int, x, 0, 1)
            for direction in self.directions:
                direction.open(x)
            results = self._results()
        for use in list(self.node.users):  # what a trace reads of several results are items
            use.replace_all_uses_with(results[use.args[1]])  # type: ignore[index]
            self.module.graph.erase_node(use)
        self.module.graph.erase_node(self.node)

    def _results(self) -> list[Node]:
        """The sequence and the last states, as the operator returns them."""
        sequences, *states = zip(*(direction.results for direction in self.directions), strict=True)
        sequence = sequences[0]
        if len(sequences) > 1:
            sequence = surgery.call(self.module, aten.cat.default, list(sequences), 2)
        if self.batch_first:
            sequence = surgery.call(self.module, aten.transpose.int, sequence, 0, 1)
        return [sequence, *(surgery.call(self.module, aten.stack.default, list(state)) for state in states)]


class Direction:
    """The forward or the reverse half of a call.

    In an opened call, `inputs` makes what the inputs contribute to the gates, and `results` are the sequence
    of hidden states (or of what the recurrence emits) and the last states. `hidden` is the state's length.
    """

    def __init__(self, call: Call, place: int, count: int) -> None:
        self.call = call
        self.inputs: Node | None = None
        self.results: list[Node] = []
        self.place = place
        self._count = count
        self._initial: dict[str, Node] = {}
        self._hidden_bias: list[Node] = []
        self.hidden = surgery.tensor_of(call.module, self.params[1]).shape[1]

    @property
    def params(self) -> list[Node]:
        """W_ih, W_hh and, where there are biases, b_ih and b_hh, while the operator is in place."""
        params = surgery.arguments(self.call.node)["params"]
        size = len(params) // self._count
        return list(params[self.place * size : (self.place + 1) * size])

    def feed(self, each: GateMap) -> None:
        """Let what the call takes reach the gates through a map."""
        module = self.call.module
        reader = self.inputs or self.call.node
        with module.graph.inserting_before(reader):
            parameters = [module.graph.get_attr(path) for path in each.paths]
            if self.inputs is None:
                self._replace_input_weight(*parameters)
                return
            values = surgery.arguments(self.inputs)
            fed = _made(module, each.all_steps, values["input"], values["bias"], *parameters)
        self.inputs.replace_all_uses_with(fed)
        module.graph.erase_node(self.inputs)
        self.inputs = fed

    def _replace_input_weight(self, weight: Node) -> None:
        params = list(surgery.arguments(self.call.node)["params"])
        params[self.place * len(params) // self._count] = weight
        self.call.node.update_arg(2, params)

    def open(self, x: Node) -> None:
        """Insert the gates' inputs from the sequence (steps, batch, n), and a loop with the dense matrix."""
        module, values = self.call.module, surgery.arguments(self.call.node)
        weight, hidden_weight, *biases = self.params
        states = values["hx"] if isinstance(values["hx"], list | tuple) else [values["hx"]]
        firsts = (surgery.call(module, aten.select.int, state, 0, self.place) for state in states)
        self._initial = dict(zip(("h", "c"), firsts, strict=False))
        bias = biases[0] if biases else None
        if self.call.cell == "gru":  # its reset gate acts on the hidden bias too
            self._hidden_bias = biases[1:]
        elif biases:
            bias = surgery.call(module, aten.add.Tensor, *biases)
        self.inputs = surgery.call(module, aten.linear.default, x, weight, bias)
        self.results = self._loop(Recurrence(MatrixMap((str(hidden_weight.target),))))

    def recur(self, recurrence: Recurrence) -> None:
        """Let the hidden state reach the gates as `recurrence` says."""
        self.call.open()
        with self.call.module.graph.inserting_before(self.results[0]):
            results = self._loop(recurrence)
        for old, new in zip(self.results, results, strict=True):
            old.replace_all_uses_with(new)
        self.results = results

    def _loop(self, recurrence: Recurrence) -> list[Node]:
        if self.inputs is None:
            raise ValueError("the call has not been opened")
        module, cell, sequence = self.call.module, self.call.cell, self.inputs
        weights = [module.graph.get_attr(path) for path in recurrence.paths]
        first = dict(self._initial)
        if recurrence.project is not None:
            first["p"] = surgery.call(module, aten.linear.default, first["h"], weights[0])
        if self.place:
            sequence = surgery.call(module, aten.flip.default, sequence, [0])
        names = carried(cell, recurrence)
        init = [first[name] for name in names]
        body = step(cell, self.hidden, recurrence)
        *states, emitted = scan.insert(module, body, init, [sequence], [*weights, *self._hidden_bias])
        if self.place:
            emitted = surgery.call(module, aten.flip.default, emitted, [0])
        last = dict(zip(names, states, strict=True))
        return [emitted, *(last[name] for name in self._initial)]


def _made(module: GraphModule, make: Callable[..., Any], *nodes: Node | None) -> Node:
    """Insert the calls that a function makes of proxies."""
    tracer = GraphAppendingTracer(module.graph)
    proxies = [None if node is None else Proxy(node, tracer) for node in nodes]
    made: Node = make(*proxies).node
    return made
