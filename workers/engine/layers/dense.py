"""Layers that stay dense: counted, named, and with the reason why."""

from functools import cached_property

from torch.fx import Node

from workers.engine.graph import surgery
from workers.engine.layers.base import Layer, Site


class DenseLayer(Layer):
    """A layer that is counted but has no cheaper form."""

    def __init__(self, *sites: Site, kind: str, macs: int, reason: str) -> None:
        super().__init__(*sites, reason=reason)
        self.kind = kind
        self._macs = macs

    @property
    def macs(self) -> int:
        """Multiply-accumulates for batch 1."""
        return self._macs


class WholeCall(DenseLayer):
    """A call whose weights cannot be taken apart, such as a loop: counted, and kept dense."""

    def __init__(self, site: Site, weights: list[Node], kind: str, macs: int, reason: str) -> None:
        super().__init__(site, kind=kind, macs=macs, reason=reason)
        self._weights = weights

    @cached_property
    def parameters(self) -> int:
        """All weights and biases of the call."""
        return sum(surgery.tensor_of(self.site.module, weight).numel() for weight in self._weights)


class RecurrentLayer(WholeCall):
    """A recurrent call as a whole."""

    @property
    def name(self) -> str:
        """The module's path: what stands before `weight_ih_l0`."""
        owner, _, leaf = self.site.name.rpartition(".")
        return owner or leaf
