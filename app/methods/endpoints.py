"""`/v1/methods`: what can be asked for, from the contract itself."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from app.contract.base import Contract
from app.contract.spec import (
    BudgetRanks,
    CrossValidationRanks,
    Device,
    EnergyRanks,
    ExplicitRanks,
    FractionRanks,
    Method,
    Output,
    Target,
    Task,
    VbmfRanks,
)
from app.errors import documented


class MethodInfo(Contract):
    """A decomposition: the kinds of layer it is for, and what its ranks are."""

    name: Method
    description: str
    layers: list[str]
    ranks: list[str]


class Choice(Contract):
    """Something to choose by name, with the JSON schema of its parameters."""

    name: str
    description: str
    parameters: dict[str, Any]


class MetricInfo(Contract):
    """What is measured for a task; the first is the one that is reported with a confidence interval."""

    task: Task
    metrics: list[str]


class Methods(Contract):
    """Everything a job's body may name."""

    methods: list[MethodInfo]
    ranks: list[Choice]
    target: dict[str, Any]
    metrics: list[MetricInfo]
    outputs: list[Output]
    devices: list[Device]


def _choice(parameters: type[BaseModel], name: str) -> Choice:
    schema = parameters.model_json_schema()
    return Choice(name=name, description=schema.pop("description"), parameters=schema)


_ALL = Methods(
    methods=[
        MethodInfo(
            name=Method.SVD,
            description="Truncated singular value decomposition: two thin layers in place of one.",
            layers=["linear", "addmm", "convolution with a kernel of one element"],
            ranks=["the singular values kept"],
        ),
        MethodInfo(
            name=Method.TUCKER,
            description="Tucker-2: a small convolution between two pointwise ones in place of one.",
            layers=["convolution with a larger kernel"],
            ranks=["output channels of the core", "input channels of the core"],
        ),
        MethodInfo(name=Method.KEEP, description="The layer stays dense.", layers=["every"], ranks=[]),
    ],
    ranks=[
        _choice(BudgetRanks, "budget"),
        _choice(FractionRanks, "fraction"),
        _choice(EnergyRanks, "energy"),
        _choice(VbmfRanks, "vbmf"),
        _choice(CrossValidationRanks, "cross_validation"),
        _choice(ExplicitRanks, "explicit"),
    ],
    target=Target.model_json_schema(),
    metrics=[
        MetricInfo(task=Task.CLASSIFICATION, metrics=["top1", "top5"]),
        MetricInfo(task=Task.LANGUAGE_MODELING, metrics=["perplexity"]),
        MetricInfo(task=Task.REGRESSION, metrics=["rmse", "r2"]),
        MetricInfo(task=Task.NONE, metrics=["relative_error", "cosine", "top1_agreement"]),
    ],
    outputs=list(Output),
    devices=list(Device),
)

router = APIRouter(prefix="/v1/methods", tags=["methods"], responses=documented(401, 500, 503))


@router.get("", operation_id="list_methods", summary="What can be asked for")
def methods() -> Methods:
    """With the JSON schema of each rank selection's parameters and of the target."""
    return _ALL
