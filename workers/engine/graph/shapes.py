"""Following the shapes through a graph on fake tensors: nothing is allocated, nothing multiplied."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import Target

from workers.engine.errors import EngineError
from workers.engine.graph import recurrent
from workers.engine.graph.network import Network
from workers.engine.graph.recurrent import RECURRENT, bind
from workers.engine.graph.scan import COND, SCAN


class ShapeInterpreter(Interpreter):
    """Runs a network's graph for batch 1 on tensors without data.

    `current` is the node at work: where a shape cannot be followed, it says where. `steps` is how often that
    runs: as often as the loop around it.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network.module, garbage_collect_values=True)
        self._network = network
        self.current = "its inputs"
        self.steps = 1

    def follow(self) -> None:
        """Run the graph; raises `EngineError` (`shapes_unknown`) where a shape depends on the values of the
        inputs, or does not fit."""
        try:
            with FakeTensorMode(), torch.no_grad():
                shapes = zip(self._network.inputs, self._network.sizes(), strict=True)
                self.run(*(torch.empty(size, dtype=spec.dtype) for spec, size in shapes))
        except Exception as error:
            raise EngineError(
                "shapes_unknown",
                f"The shapes inside of the network could not be followed at {self.current}.",
                hint="Export the model so that no shape depends on the values of its inputs.",
            ) from error

    def run_node(self, n: Node) -> Any:
        """One node."""
        self.current = n.name
        return super().run_node(n)

    def fetch_attr(self, target: str) -> Any:
        """A stored tensor's shape without its data."""
        value = super().fetch_attr(target)
        if not isinstance(value, Tensor):
            return value
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="cpu")

    def call_function(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator; a recurrent layer is not unrolled."""
        if isinstance(target, OpOverload) and target in RECURRENT:
            return recurrent.outputs(**bind(target, args, kwargs))
        if target is SCAN:
            return self.scan(*args)
        if target is COND:
            return self.cond(*args)
        return super().call_function(target, args, kwargs)

    def scan(
        self, body: GraphModule, init: list[Tensor], xs: list[Tensor], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """A loop over time, of which one step is followed."""
        self.steps = len(xs[0])
        try:
            results = _Step(body, self).run(*init, *(x[0] for x in xs), *weights)
        finally:
            self.steps = 1
        carried, emitted = results[: len(init)], results[len(init) :]
        return (*carried, *(value.new_empty((len(xs[0]), *value.shape)) for value in emitted))

    def cond(
        self, _: Any, yes: GraphModule, no: GraphModule, operands: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """A choice, of which both ways are followed: they give the same shapes."""
        return [self.way(body, operands) for body in (no, yes)][-1]

    def way(self, body: GraphModule, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One way of a choice."""
        return tuple(_Step(body, self).run(*operands))


class _Step(Interpreter):
    """Runs a graph inside of the network's, its calls as the network's own."""

    def __init__(self, body: GraphModule, network: ShapeInterpreter) -> None:
        super().__init__(body)
        self._network = network

    def call_function(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._network.call_function(target, args, kwargs)


class _Recorder(ShapeInterpreter):
    """Keeps the shape of every tensor."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
        return value


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor-valued node for batch 1, by node name."""

    def follow() -> dict[str, tuple[int, ...]]:
        recorder = _Recorder(network)
        recorder.follow()
        return recorder.shapes

    return network.computed("shapes", follow)
