"""What planning has to know of a layer: the engine's layers are such, and what inspection left of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

Rank = tuple[int, ...]

# Ranks are multiples of eight where they can be: 63 and 65 run at half the speed of 64.
STEPS = (8, 4, 2, 1)


class Form(Protocol):
    """One way to write a layer: a method at a rank.

    `parameters` and `macs` (batch 1) are the whole layer's in this form; `error` is the predicted
    ‖W − Ŵ‖² / ‖W‖², in [0, 1].
    """

    @property
    def method(self) -> str:
        """As the contract names it."""

    @property
    def rank(self) -> Rank:
        """One number for each mode."""

    @property
    def parameters(self) -> int:
        """Weights and biases."""

    @property
    def macs(self) -> int:
        """All calls together."""

    @property
    def error(self) -> float:
        """What the form loses of the weight's energy."""


class Factorization(Protocol):
    """One method applied to one layer."""

    @property
    def max_rank(self) -> Rank:
        """The largest rank of every mode."""

    def forms(self, step: int) -> Iterable[Form]:
        """Those known whose ranks are multiples of `step` and that cost less than dense."""

    def fits(self, rank: Rank) -> bool:
        """Whether a rank has the right number of modes and is within range."""

    def form(self, rank: Rank) -> Form:
        """The form at one rank within `max_rank`."""


class Layer(Protocol):
    """A weight that may be factorized, or the `reason` why it must stay dense.

    `sensitivity` predicts the whole network's divergence from a form's error, where that was measured.
    """

    @property
    def name(self) -> str:
        """In the user's own network."""

    @property
    def parameters(self) -> int:
        """Of the dense layer."""

    @property
    def macs(self) -> int:
        """Of the dense layer."""

    @property
    def reason(self) -> str | None:
        """Why it stays dense; None where it may be factorized."""

    @property
    def methods(self) -> Mapping[str, Factorization]:
        """What it may take; none where it stays dense."""

    @property
    def sensitivity(self) -> Callable[[float], float] | None:
        """From error to divergence."""


def saves(layer: Layer, form: Form) -> bool:
    """Whether a form is cheaper than dense in both currencies, where there are MACs to save: nothing is ever
    made larger."""
    return form.parameters < layer.parameters and (layer.macs == 0 or form.macs < layer.macs)
