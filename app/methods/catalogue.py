"""What can be asked for, in words: one entry for every method and every choice of the contract."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from app.contract.base import Contract
from app.contract.spec import (
    DEFAULT_METHODS,
    ENOUGH_ROWS,
    BudgetRanks,
    Calibration,
    CrossValidationRanks,
    Device,
    EnergyRanks,
    ExplicitRanks,
    Finetune,
    FractionRanks,
    Method,
    Output,
    Quantization,
    Target,
    Task,
    VbmfRanks,
    Weighting,
)


class MethodInfo(Contract):
    """A decomposition: the kinds of layer it is for, what the numbers of its rank are, and their JSON schema.
    `default` ones are tried where a job names no methods."""

    name: Method
    description: str
    layers: list[str]
    ranks: list[str]
    default: bool
    parameters: dict[str, Any]


class Choice(Contract):
    """Something to choose by name, with the JSON schema of its parameters."""

    name: str
    description: str
    parameters: dict[str, Any]


class WeightingInfo(Contract):
    """What `calibration.weighting` may be: the objective of every fit."""

    name: Weighting
    description: str


class QuantizationInfo(Contract):
    """What `quantize` may be: another form of every ONNX file, reported apart."""

    name: Quantization
    description: str


class MetricInfo(Contract):
    """What is measured for a task; the first is the one that is reported with a confidence interval."""

    task: Task
    metrics: list[str]


class Methods(Contract):
    """Everything a job's body may name."""

    methods: list[MethodInfo]
    ranks: list[Choice]
    target: dict[str, Any]
    calibration: dict[str, Any]
    weightings: list[WeightingInfo]
    finetune: dict[str, Any]
    metrics: list[MetricInfo]
    outputs: list[Output]
    quantizations: list[QuantizationInfo]
    devices: list[Device]


_MATRICES = ["linear", "addmm", "matmul"]
_CONVOLUTIONS = ["conv1d", "conv2d", "conv3d"]
_TRANSPOSED = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
_RECURRENT = ["lstm", "gru", "rnn"]
LAYERS = [*_MATRICES, "embedding", *_CONVOLUTIONS, *_TRANSPOSED, *_RECURRENT, "attention"]
"""Every kind of layer, as inspection names them; `attention` is that of a pair."""


def _method(
    name: Method, description: str, layers: Sequence[str], *ranks: str, lengths: tuple[int, int] | None = None
) -> MethodInfo:
    """`lengths` are the least and most numbers of a rank, where they differ by layer."""
    least, most = lengths or (len(ranks), len(ranks))
    number = {"type": "integer", "minimum": 1}
    several = {"type": "array", "items": number, "minItems": least, "maxItems": most}
    schema = {"type": "object", "properties": {"rank": {"anyOf": [number, several]}}} if ranks else {}
    return MethodInfo(
        name=name,
        description=description,
        layers=list(layers),
        ranks=list(ranks),
        default=name.value in DEFAULT_METHODS,
        parameters=schema,
    )


def _choice(parameters: type[BaseModel]) -> Choice:
    schema = parameters.model_json_schema()
    name = schema["properties"]["selection"]["const"]
    return Choice(name=name, description=schema.pop("description"), parameters=schema)


CATALOGUE = Methods(
    methods=[
        _method(
            Method.SVD,
            "Truncated singular value decomposition: two thin layers in place of one, of convolutions with a "
            "kernel of one element. Recurrent weights that read the same state share the right factor; so do "
            "an embedding and a head tied to it.",
            [*_MATRICES, "embedding", *_CONVOLUTIONS, *_TRANSPOSED, *_RECURRENT],
            "the singular values kept",
        ),
        _method(
            Method.TUCKER,
            "A small core between thin factors: of a convolution with a larger kernel a small one between "
            "two pointwise ones; of recurrent weights with equal gates one over gates, units and inputs.",
            [*_CONVOLUTIONS, *_TRANSPOSED, *_RECURRENT],
            "outputs of the core; of recurrent layers gates",
            "inputs of the core; of recurrent layers hidden units",
            "of recurrent layers inputs",
            lengths=(2, 3),
        ),
        _method(
            Method.SPATIAL_SVD,
            "A convolution along one axis of the kernel, then one along the other, both longer than one.",
            ["conv2d", "conv_transpose2d"],
            "channels between the two",
        ),
        _method(
            Method.CHANNEL_SVD,
            "The whole kernel into few channels, then a pointwise convolution.",
            [*_CONVOLUTIONS, *_TRANSPOSED],
            "channels between the two",
        ),
        _method(
            Method.CHANNEL_SVD_IN,
            "A pointwise convolution into few channels, then the whole kernel.",
            [*_CONVOLUTIONS, *_TRANSPOSED],
            "channels between the two",
        ),
        _method(
            Method.CP,
            "A sum of outer products: of a convolution in one group a pointwise, a depthwise and a pointwise "
            "one; of recurrent weights over gates, hidden units and inputs. Every rank is a fit of its own.",
            [*_CONVOLUTIONS, *_RECURRENT],
            "terms of the sum",
        ),
        _method(
            Method.FULL_TUCKER,
            "Tucker on every mode of a kernel in one group, its axes included.",
            _CONVOLUTIONS,
            "outputs of the core",
            "inputs of the core",
            "one for each axis of the kernel",
            lengths=(3, 5),
        ),
        _method(
            Method.TENSOR_TRAIN,
            "Three small cores over the digits of rows and columns, of embeddings where no head is tied to "
            "them. Saves storage more than time.",
            [*_MATRICES, "embedding"],
            "between the first core and the second",
            "between the second core and the third",
        ),
        _method(
            Method.JOINT_SVD,
            "Queries with keys, and values with outputs, as the products they are: smaller heads.",
            ["attention"],
            "the size of a head",
        ),
        _method(
            Method.INPUT_SVD,
            "The input weights of the next recurrent layer alone, where only that reads the states. The "
            "recurrence stays dense and fused.",
            _RECURRENT,
            "the singular values kept",
        ),
        _method(Method.KEEP, "The layer stays dense.", LAYERS),
    ],
    ranks=[
        _choice(BudgetRanks),
        _choice(FractionRanks),
        _choice(EnergyRanks),
        _choice(VbmfRanks),
        _choice(CrossValidationRanks),
        _choice(ExplicitRanks),
    ],
    target=Target.model_json_schema(),
    calibration=Calibration.model_json_schema(),
    weightings=[
        WeightingInfo(
            name=Weighting.AUTO,
            description="The one by inputs and gradients; "
            f"below {ENOUGH_ROWS} rows each is tried, and outputs decide.",
        ),
        WeightingInfo(
            name=Weighting.NONE, description="Least ‖W − Ŵ‖: every error of a weight counts alike."
        ),
        WeightingInfo(
            name=Weighting.INPUTS,
            description="Least ‖(W − Ŵ) L‖ with L Lᵀ = E[x xᵀ]: the error of the layer's outputs.",
        ),
        WeightingInfo(
            name=Weighting.TWO_SIDED,
            description="Least ‖Rᵀ (W − Ŵ) L‖ with R Rᵀ = E[g gᵀ] of the loss's gradients at the outputs: "
            "what the loss makes of that error.",
        ),
    ],
    finetune=Finetune.model_json_schema(),
    metrics=[
        MetricInfo(task=Task.CLASSIFICATION, metrics=["top1", "top5"]),
        MetricInfo(task=Task.LANGUAGE_MODELING, metrics=["perplexity"]),
        MetricInfo(task=Task.REGRESSION, metrics=["rmse", "r2"]),
        MetricInfo(task=Task.NONE, metrics=["relative_error", "cosine", "top1_agreement"]),
    ],
    outputs=list(Output),
    quantizations=[
        QuantizationInfo(
            name=Quantization.DYNAMIC_INT8,
            description="ONNX Runtime's dynamic quantization: weights as 8-bit integers, activations as "
            "they come. Makes candidate-N-int8.onnx besides; needs `onnx` among the outputs.",
        )
    ],
    devices=list(Device),
)
