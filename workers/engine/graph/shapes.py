"""Shapes of every value in a graph, computed on fake tensors: nothing is allocated, nothing multiplied."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Interpreter, Node

from workers.engine.graph.network import Network


class _Recorder(Interpreter):
    """Runs a graph and keeps the shape of every tensor."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
        return value


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor-valued node for batch 1, by node name."""
    recorder = _Recorder(network)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        sizes = zip(network.inputs, network.sizes(), strict=True)
        recorder.run(*(torch.empty(size, dtype=spec.dtype) for spec, size in sizes))
    return recorder.shapes
