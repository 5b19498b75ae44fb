"""Which layer takes which form at which rank."""

from app.contract.base import Contract
from app.contract.spec import Method, Weighting


class LayerPlan(Contract):
    """The decision for one layer; costs are [before, after]; `reason` says why a layer stays dense.

    `discarded_energy` is what the plan expects to lose, ‖W − Ŵ‖² / ‖W‖² in the plan's weighting; the errors
    are measured once the factors are made.
    """

    name: str
    method: Method
    rank: list[int] | None = None
    parameters: tuple[int, int]
    macs: tuple[int, int]
    latency_ms: tuple[float, float] | None = None
    discarded_energy: float = 0.0
    weight_error: float = 0.0
    output_error: float | None = None
    warnings: list[str] = []
    reason: str | None = None


class Plan(Contract):
    """One candidate: the whole network's cost after the decisions, `keep` as it was asked for.

    Of a budget, losses of layers count e^(a · depth) times for the `depth_weighting` a: depth goes from 0 in
    the first layer to 1 in the last. `divergence` from the original is measured once the factors are made,
    where there are rows for it.
    """

    keep: float
    weighting: Weighting = Weighting.NONE
    depth_weighting: float = 0.0
    divergence: float | None = None
    parameters: int
    macs: int
    predicted_ms: float | None = None
    layers: list[LayerPlan]
