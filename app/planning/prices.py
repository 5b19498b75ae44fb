"""What a layer costs in the currency of a budget: parameters, MACs, or measured time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from app.planning.layers import Form, Layer

Currency = Literal["macs", "parameters"]

# A form that is hardly faster than dense when it is timed alone is not surely faster at all.
_WORTHWHILE = 1.1


class Price(Protocol):
    """Costs that add up over layers, in whole units of `currency`."""

    @property
    def currency(self) -> str:
        """What is counted."""

    def dense(self, layer: Layer) -> int:
        """Of the layer as it is."""

    def form(self, layer: Layer, form: Form) -> int | None:
        """Of the layer in a form; None where the form is out of the question."""


@dataclass(frozen=True)
class Counted:
    """Parameters, or multiply-accumulates for batch 1."""

    currency: Currency

    def dense(self, layer: Layer) -> int:
        """The layer's own count."""
        return layer.macs if self.currency == "macs" else layer.parameters

    def form(self, layer: Layer, form: Form) -> int:
        """The form's."""
        return form.macs if self.currency == "macs" else form.parameters


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of a layer's calls alone: dense, and by the method and rank of a form."""

    dense_ms: float
    forms_ms: Mapping[tuple[str, tuple[int, ...]], float] = field(default_factory=dict)

    def of(self, form: Form) -> float | None:
        """Those of a form, where it was timed."""
        return self.forms_ms.get((form.method, form.rank))


@dataclass(frozen=True)
class Timed:
    """Nanoseconds that a form adds to the network's own time: less than none where it is faster. By the
    times of each layer, by its name; forms that were not timed, or are under 1.1 times as fast as dense, are
    out of the question."""

    times: Mapping[str, LayerTimes]
    currency: str = "latency"

    def dense(self, layer: Layer) -> int:
        """Nothing is added."""
        return 0

    def form(self, layer: Layer, form: Form) -> int | None:
        """What is added."""
        known = self.times.get(layer.name)
        found = known.of(form) if known else None
        if known is None or found is None or found * _WORTHWHILE > known.dense_ms:
            return None
        return round((found - known.dense_ms) * 1e6)
