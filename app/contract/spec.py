"""What a user asks for: the body of `POST /v1/jobs`."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contract.base import Contract


class Decomposition(StrEnum):
    """What a layer may become."""

    SVD = "svd"
    TUCKER = "tucker"
    SPATIAL_SVD = "spatial_svd"
    CHANNEL_SVD = "channel_svd"
    CHANNEL_SVD_IN = "channel_svd_in"
    CP = "cp"
    FULL_TUCKER = "full_tucker"
    TENSOR_TRAIN = "tensor_train"
    JOINT_SVD = "joint_svd"
    INPUT_SVD = "input_svd"


# The rest must be asked for: they take minutes to fit, or pay for few layers only.
DEFAULT_METHODS = (
    Decomposition.SVD,
    Decomposition.TUCKER,
    Decomposition.SPATIAL_SVD,
    Decomposition.CHANNEL_SVD,
    Decomposition.CHANNEL_SVD_IN,
    Decomposition.INPUT_SVD,
)


class Method(StrEnum):
    """What is decided for one layer: a decomposition, or `keep`, which leaves it dense."""

    SVD = "svd"
    TUCKER = "tucker"
    SPATIAL_SVD = "spatial_svd"
    CHANNEL_SVD = "channel_svd"
    CHANNEL_SVD_IN = "channel_svd_in"
    CP = "cp"
    FULL_TUCKER = "full_tucker"
    TENSOR_TRAIN = "tensor_train"
    JOINT_SVD = "joint_svd"
    INPUT_SVD = "input_svd"
    KEEP = "keep"


ENOUGH_ROWS = 256
"""From so many calibration rows on `Weighting.AUTO` is one weighting: fewer may not know the gradients."""


class Weighting(StrEnum):
    """Which errors of a weight count: all alike, those on inputs that occur in the calibration data, or
    those on such inputs toward outputs that the result depends on. `auto` is the last; where few rows
    calibrate, each is tried, and what diverges least from the original on rows held out is kept."""

    AUTO = "auto"
    NONE = "none"
    INPUTS = "inputs"
    TWO_SIDED = "two_sided"


class Task(StrEnum):
    """What the model is for, which decides the metric."""

    CLASSIFICATION = "classification"
    LANGUAGE_MODELING = "language-modeling"
    REGRESSION = "regression"
    NONE = "none"


class Output(StrEnum):
    """The formats an artifact can take. `huggingface` is a folder in a zip, for models that came as one."""

    PT2 = "pt2"
    ONNX = "onnx"
    HUGGINGFACE = "huggingface"


class Quantization(StrEnum):
    """What is made of every ONNX file besides: weights as 8-bit integers, and activations as they come."""

    DYNAMIC_INT8 = "dynamic-int8"


class Device(StrEnum):
    """Where the job runs; `auto` takes a GPU where the worker has one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Keep = Annotated[float, Field(gt=0.0, le=1.0, description="fraction of the original cost that remains")]
Rank = Annotated[int, Field(ge=1)]
_HALF = 0.5


class Data(Contract):
    """The data sets; one alone is split, and the report says how.

    `length` is for raw text: how many tokens a row has at most; by default 128, or what the model takes where
    that is less. For language modeling the text is cut into rows of exactly as many, and the target is the
    next token; else a row is a line, padded.
    """

    train: str | None = None
    test: str | None = None
    length: Annotated[int, Field(ge=2, le=1 << 16)] | None = None


class Target(Contract):
    """The budget: `keep` that fraction of the original's MACs, parameters or latency (half, where nothing is
    said), or as little as `max_drop` allows: the metric, on rows kept for that, falls by no more before any
    fine-tuning. It is an absolute difference; of perplexity and RMSE, one relative to the original's.

    Layers stay dense beyond what `keep` asks for until the outputs name the same class on `min_agreement` of
    the rows held out: by default on 0.8 of them, for scores that have no labels and are not fine-tuned.

    The latency is that of ONNX Runtime on one thread for batch 1, by what the forms of each layer are
    measured to take on the worker's machine.
    """

    of: Literal["macs", "parameters", "latency"] = "macs"
    keep: Keep | Annotated[list[Keep], Field(min_length=1, max_length=8)] | None = None
    max_drop: Annotated[float, Field(ge=0.0)] | None = None
    min_agreement: Annotated[float, Field(ge=0.0, le=1.0)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "Target":
        if self.max_drop is not None and (self.keep is not None or self.min_agreement is not None):
            raise ValueError("max_drop finds the budget itself: it goes with neither keep nor min_agreement")
        return self

    @property
    def keeps(self) -> list[float]:
        """The fractions as a list, one candidate each; none where the budget is to be found."""
        if self.max_drop is not None:
            return []
        if self.keep is None:
            return [_HALF]
        return self.keep if isinstance(self.keep, list) else [self.keep]


class BudgetRanks(Contract):
    """One global allocation over all layers that meets `target` with the least loss. Blind to how the errors
    of several layers act together: their losses are added up."""

    selection: Literal["budget"]


class FractionRanks(Contract):
    """Every layer keeps the same fraction of its own cost; without `fraction`, the target's `keep`. Blind to
    which layers matter."""

    selection: Literal["fraction"]
    fraction: Keep | None = None


class EnergyRanks(Contract):
    """Every layer takes its cheapest form that holds `energy` of its squared norm, as the weighting has it.
    Blind to the budget and to which layers matter."""

    selection: Literal["energy"]
    energy: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9


class VbmfRanks(Contract):
    """Every layer keeps the rank that variational Bayesian matrix factorization takes for signal. Blind to
    the data, to the budget and to which layers matter."""

    selection: Literal["vbmf"]


class CrossValidationRanks(Contract):
    """Every layer keeps the same fraction of its own cost: the least on `grid` whose metric over `folds`
    folds of the calibration rows is within one standard error of the best. Blind to the budget and to which
    layers matter."""

    selection: Literal["cross_validation"]
    folds: Annotated[int, Field(ge=2, le=20)] = 4
    grid: Annotated[list[Keep], Field(min_length=1, max_length=16)] = [0.75, 0.5, 0.35, 0.25]


class ExplicitRanks(Contract):
    """The layers to which `layers` gives a rank take it; every other layer stays dense. Blind to everything
    else."""

    selection: Literal["explicit"]


Ranks = Annotated[
    BudgetRanks | FractionRanks | EnergyRanks | VbmfRanks | CrossValidationRanks | ExplicitRanks,
    Field(discriminator="selection"),
]


class LayerRule(Contract):
    """An override for the layers whose names match (fnmatch); the first match wins."""

    match: Annotated[str, Field(min_length=1, max_length=512)]
    method: Method | None = None
    rank: Rank | Annotated[list[Rank], Field(min_length=1, max_length=8)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "LayerRule":
        if self.method is None and self.rank is None:
            raise ValueError("a layer rule needs a method, a rank, or both")
        if self.method is Method.KEEP and self.rank is not None:
            raise ValueError("a layer that is kept dense has no rank")
        return self


class Calibration(Contract):
    """What the train rows that are set aside for calibration are used for: up to `rows` of them, their second
    moments held in at most `memory_mb` megabytes at a time (more passes where that is too little)."""

    weighting: Weighting = Weighting.AUTO
    rows: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    memory_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 1024


class Finetune(Contract):
    """Recovery after the decomposition: AdamW, a cosine schedule over all epochs. The last weights stay,
    unless those before any training or after an earlier epoch were better on the rows kept for selection by
    more than a standard error. Training ends early once `patience` epochs in a row brought nothing better;
    null never ends it. `decay` is the weight of Frobenius decay, ‖A B‖² for a layer with the factors A and B.

    Where there is no `learning_rate` every candidate has its own: 0.001 times the share of a batch's gradient
    that other batches agree with. The control has the fastest of these.

    What is learned is the original's outputs, and the labels as far as the original has not learned them.
    Without `distill` it is the labels alone.

    In several `stages` a candidate gets to its budget by turns of truncation and training: from keep^(1/n) of
    the cost on, which share the epochs. Between them trained factors are merged into dense weights, and
    calibrated, planned and decomposed again.

    `refine` brings one block after the other nearer to the original first, on the calibration rows, without
    labels; with no epochs it is all that is done.
    """

    epochs: Annotated[int, Field(ge=0, le=1000)] = 3
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 128
    distill: bool = True
    patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    refine: bool = False
    stages: Annotated[int, Field(ge=1, le=3)] = 1


class JobSpec(Contract):
    """A job's body. Only `model` is required."""

    model: Annotated[str, Field(pattern=r"^mdl_[0-9a-f]{32}$")]
    data: Data = Data()
    task: Task | None = None
    target: Target = Target()
    methods: Annotated[list[Decomposition], Field(min_length=1)] = list(DEFAULT_METHODS)
    calibration: Calibration = Calibration()
    ranks: Ranks = BudgetRanks(selection="budget")
    layers: Annotated[list[LayerRule], Field(max_length=1000)] = []
    finetune: Finetune = Finetune()
    outputs: Annotated[list[Output], Field(min_length=1)] = [Output.PT2, Output.ONNX]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Device = Device.AUTO
    quantize: Quantization | None = None

    @property
    def joint(self) -> bool:
        """Whether layers that meet in an attention become pairs: some method or rule asks for it."""
        return "joint_svd" in {*self.methods, *(rule.method for rule in self.layers)}
