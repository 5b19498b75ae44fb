"""Which layer takes which form at which rank."""

from app.contract.base import Contract
from app.contract.spec import Method


class LayerPlan(Contract):
    """The decision for one layer; costs are [before, after]; `reason` says why a layer stays dense."""

    name: str
    method: Method
    rank: list[int] | None = None
    parameters: tuple[int, int]
    macs: tuple[int, int]
    weight_error: float = 0.0
    reason: str | None = None


class Plan(Contract):
    """One candidate: the whole network's cost after the decisions, `keep` as it was asked for."""

    keep: float
    parameters: int
    macs: int
    layers: list[LayerPlan]
