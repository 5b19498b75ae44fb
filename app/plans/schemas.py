"""What plans look like on the wire."""

from pydantic import Field

from app.contract.base import Contract
from app.contract.plan import LayerPlan, Plan
from app.contract.spec import Method

Change = tuple[int, int]
_CHANGE = "before and after"


class PlannedLayer(Contract):
    """What a layer becomes. `reason` says why it stays dense."""

    name: str
    method: Method
    rank: list[int] | None
    parameters: Change = Field(description=_CHANGE)
    macs: Change = Field(description=f"{_CHANGE}, for batch 1")
    latency_ms: tuple[float, float] | None = Field(description=f"{_CHANGE}; null where nothing was timed")
    discarded_energy: float = Field(
        description="‖W − Ŵ‖² / ‖W‖² of the weight by itself; of a rank that a rule gives an upper bound"
    )
    reason: str | None


class CandidatePlan(Contract):
    """One candidate: the whole network's cost, and its layers."""

    keep: float
    parameters: int
    macs: int
    predicted_ms: float | None = Field(description="null where nothing was timed")
    layers: list[PlannedLayer]


class PlanView(CandidatePlan):
    """What a job would make of a model for the first `keep` of its target; `others` are for the further
    ones."""

    model: str
    others: list[CandidatePlan]


def candidate(plan: Plan) -> CandidatePlan:
    """One candidate of a plan."""
    fields = plan.model_dump(include=set(CandidatePlan.model_fields) - {"layers"})
    return CandidatePlan(**fields, layers=[_layer(layer) for layer in plan.layers])


def _layer(layer: LayerPlan) -> PlannedLayer:
    return PlannedLayer(**layer.model_dump(include=set(PlannedLayer.model_fields)))
