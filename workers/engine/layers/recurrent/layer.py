"""Weights of recurrent calls that multiply the same vector: what all of them have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.graph import surgery
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.layers.base import Layer, Site
from workers.engine.layers.recurrent.call import Call
from workers.engine.layers.recurrent.maps import GateMap


class GateLayer(Layer):
    """Weights that multiply the same vector, stacked: (rows, n), every row a gate of some unit.

    `paths` are the weights' names and `tensors` their values, in the order of the rows.
    """

    def __init__(self, calls: Sequence[Call], weights: Sequence[Node], biases: Sequence[Node]) -> None:
        super().__init__(*(Site(call.module, call.node, weights[0], None, (), ()) for call in calls))
        call = calls[0]
        self.call = call
        self.paths = [str(weight.target) for weight in weights]
        self.tensors = [surgery.tensor_of(call.module, weight).detach() for weight in weights]
        self._biases = [surgery.tensor_of(call.module, bias) for bias in biases]

    @property
    def kind(self) -> str:  # type: ignore[override]
        """lstm, gru or rnn."""
        return RECURRENT[self.site.node.target]  # type: ignore[index]

    @property
    def matrix(self) -> Tensor:
        """The weights on top of each other."""
        return torch.cat(self.tensors)

    @property
    def weight(self) -> Tensor:
        """The same."""
        return self.matrix

    @cached_property
    def parameters(self) -> int:
        """The weights and the biases beside them."""
        return sum(tensor.numel() for tensor in (*self.tensors, *self._biases))

    @cached_property
    def bias_parameters(self) -> int:
        """The biases beside the weights."""
        return sum(bias.numel() for bias in self._biases)

    def substitutes(self, weight: Tensor) -> Mapping[str, Tensor]:
        """Every weight's own rows."""
        rows = torch.split(weight, [len(tensor) for tensor in self.tensors])
        return dict(zip(self.paths, rows, strict=True))

    @property
    def positions(self) -> int:
        """How many vectors one example brings: the steps of its sequence."""
        return self.call.steps * self.call.batch

    @property
    def projections(self) -> int:
        """How many vectors a right factor meets."""
        return self.positions

    @property
    def macs(self) -> int:
        """Every weight at every step."""
        return self.positions * sum(tensor.numel() for tensor in self.tensors)

    @property
    @abstractmethod
    def gates(self) -> list[int]:
        """Gates that each weight makes."""

    @abstractmethod
    def put(self, maps: Sequence[GateMap], project: str) -> None:
        """Let the vector reach the gates of each weight through its map, after the projection P (r, n)."""
