"""What every layer kind offers: its cost, the forms it may take, and the surgery that puts one in."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery


@dataclass(frozen=True)
class Form:
    """One way to write a layer: a method at a rank.

    `parameters` and `macs` (batch 1) are the whole layer's in this form, `error` is the predicted
    ‖W − Ŵ‖² / ‖W‖² in [0, 1].
    """

    method: str
    rank: tuple[int, ...]
    parameters: int
    macs: int
    error: float


@dataclass(frozen=True)
class Site:
    """Where a layer sits: the graph, the call, its weight and bias, and the shapes that flow through it."""

    module: GraphModule
    node: Node
    weight: Node
    bias: Node | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The weight's path without its leaf: the module's name in the user's own network."""
        return str(self.weight.target).removesuffix(".weight")

    @property
    def W(self) -> Tensor:  # noqa: N802 -- the matrix keeps its name
        """The weight, detached, not copied."""
        return surgery.tensor_of(self.module, self.weight).detach()

    def store(self, part: str, tensor: Tensor) -> Node:
        """Register a factor beside the weight it replaces (`head.weight_left`); return its node."""
        return surgery.register(self.module, f"{self.weight.target}_{part}", tensor)

    @property
    def bias_parameters(self) -> int:
        """How many parameters the bias holds."""
        return 0 if self.bias is None else surgery.tensor_of(self.module, self.bias).numel()


class Layer(ABC):
    """A call in the graph that multiplies by a weight.

    `reason` says why the layer must stay dense; None where it may be decomposed.
    """

    kind: str
    method: str | None = None

    def __init__(self, site: Site, reason: str | None = None) -> None:
        self.site = site
        self.reason = reason

    @property
    def name(self) -> str:
        """The layer's name in the user's own network."""
        return self.site.name

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for every other kind."""
        return 1

    @property
    def parameters(self) -> int:
        """Weights and biases of the dense layer."""
        return self.site.W.numel() + self.site.bias_parameters

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer for batch 1."""

    @property
    def worthwhile(self) -> bool:
        """Whether a decomposition is known to pay in time; other layers are taken only when they must be."""
        return True

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The largest rank (per mode) that the method accepts; empty where the layer stays dense."""
        return ()

    def form(self, rank: tuple[int, ...]) -> Form:
        """The layer's form at one rank within `max_rank`."""
        raise NotImplementedError(f"a {self.kind} layer has no low-rank form")

    def forms(self, step: int) -> Iterable[Form]:
        """Every form whose ranks are multiples of `step` and that costs less than the dense layer."""
        return ()

    def rewrite(self, rank: tuple[int, ...]) -> float:
        """Put the form at this rank into the graph; return ‖W − Ŵ‖ / ‖W‖ of the factors that went in."""
        raise NotImplementedError(f"a {self.kind} layer has no low-rank form")

    def saves(self, form: Form) -> bool:
        """Whether a form is cheaper than dense in both currencies: nothing is ever made larger."""
        return form.parameters < self.parameters and form.macs < self.macs


def relative_error(W: Tensor, approximation: Tensor) -> float:
    """‖W − Ŵ‖ / ‖W‖, 0 for a zero weight."""
    norm = W.double().norm()
    return float((W.double() - approximation.double()).norm() / norm) if norm > 0 else 0.0
