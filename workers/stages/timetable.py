"""The times that ranks are chosen by where the budget is one."""

from statistics import median

from app.contract.base import Contract
from app.planning.prices import LayerTimes


class TimedForm(Contract):
    """A form of a layer, in milliseconds."""

    method: str
    rank: list[int]
    ms: float


class TimedLayer(Contract):
    """A layer's calls alone: dense, with what lies between the quartiles, and in its forms."""

    layer: str
    dense_ms: float
    iqr_ms: float
    forms: list[TimedForm]


class Timetable(Contract):
    """The whole network in ONNX Runtime, and its layers."""

    network_ms: float
    layers: list[TimedLayer]

    @property
    def noise(self) -> float:
        """The quartiles' distance over the median, for the layer in the middle."""
        return median([each.iqr_ms / each.dense_ms for each in self.layers]) if self.layers else 0.0

    @property
    def by_layer(self) -> dict[str, LayerTimes]:
        """As prices take them."""
        return {
            each.layer: LayerTimes(
                each.dense_ms, {(form.method, tuple(form.rank)): form.ms for form in each.forms}
            )
            for each in self.layers
        }
