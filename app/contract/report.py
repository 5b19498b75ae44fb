"""What a finished job reports. Every number was measured; a number that was not is null, never a guess."""

from typing import Literal

from app.contract.base import Contract
from app.contract.problem import Notice
from app.contract.spec import JobSpec, Weighting

LOWER_IS_BETTER = frozenset({"perplexity", "rmse"})


class Metric(Contract):
    """A task metric on `n` examples with its 95 % confidence interval; `also` holds its siblings."""

    name: str
    value: float
    n: int
    ci95: tuple[float, float]
    also: dict[str, float] = {}


class Fidelity(Contract):
    """How close the outputs are to the original's on `n` examples."""

    relative_error: float
    cosine: float
    top1_agreement: float | None = None
    n: int


class Latency(Contract):
    """Milliseconds per call: median, 95th percentile, interquartile range over `runs` calls."""

    batch: int
    threads: int
    p50_ms: float
    p95_ms: float
    iqr_ms: float
    runs: int


class BytesMoved(Contract):
    """Bytes that the calls of one inference (batch 1) read and write, counted on the graph as if nothing were
    fused or cached between two calls: of what the network stores, and of everything else."""

    weights: int
    activations: int


class Throughput(Contract):
    """Examples a second in ONNX Runtime: the batch over the median time of `runs` calls. Null where one call
    took too long, or did not fit into memory."""

    batch: int
    threads: int
    examples_per_second: float | None = None
    runs: int = 0


class Quantized(Contract):
    """The int8 form of a network, in ONNX Runtime: `bytes` of its file, `latency` in turns with the float
    form, `fidelity` to the original's float outputs."""

    bytes: int
    latency: Latency | None = None
    metric: Metric | None = None
    fidelity: Fidelity


class TrainingPoint(Contract):
    """One point of a fine-tuning curve; `metric` only where it was evaluated (on held-out train data)."""

    step: int
    loss: float
    metric: float | None = None


class LayerReport(Contract):
    """One layer of a candidate; pairs are [before, after].

    `discarded_energy` is ‖W − Ŵ‖² / ‖W‖² in the candidate's weighting, `weight_error` ‖W − Ŵ‖ / ‖W‖ of the
    weight as it is, `output_error` the same of the layer's output on rows held out of the calibration. All
    are of the last truncation, before its factors were trained.
    """

    name: str
    method: str
    rank: list[int] | None = None
    parameters: tuple[int, int]
    macs: tuple[int, int]
    discarded_energy: float = 0.0
    weight_error: float
    output_error: float | None = None
    latency_ms: tuple[float, float] | None = None
    warnings: list[str] = []
    reason: str | None = None


class Measured(Contract):
    """What is measured of the original and of every candidate alike; bytes by output format.

    `arithmetic_intensity` is MACs per byte moved. `energy_reason` says why there is no energy. `quantized` is
    null where it was not asked for, or the network has no int8 form.
    """

    parameters: int
    macs: int
    bytes: dict[str, int]
    latency: dict[str, Latency]
    peak_memory_bytes: int | None = None
    bytes_moved: BytesMoved | None = None
    arithmetic_intensity: float | None = None
    throughput: list[Throughput] = []
    energy_per_inference_joules: float | None = None
    energy_reason: str | None = None
    metric: Metric | None = None
    quantized: Quantized | None = None


class Control(Contract):
    """The original, fine-tuned by the same rules: the honest baseline. Where no learning rate was asked for
    it has the fastest of the candidates'."""

    metric: Metric
    learning_rate: float | None = None


class Trial(Contract):
    """One plan that was tried for a candidate, by its weighting and that of the layers' depth: how far the
    outputs then were from the original's on rows held out of the calibration, before any training."""

    weighting: Weighting
    depth_weighting: float = 0.0
    divergence: float


class FoldMetrics(Contract):
    """One fraction on the grid of a cross-validation: the metric on every fold, and whether it was chosen."""

    fraction: float
    metric: str
    folds: list[float]
    chosen: bool


class Candidate(Measured):
    """One compressed network. Where the budget is a time, `predicted_ms` is what the plan promised in ONNX
    Runtime, from its layers' times alone. `metric_before_finetune` is that of one truncation to `keep`,
    however many stages there were; null where nothing was trained, like the `learning_rate`, that of the last
    stage. `labels_share` is how much of the loss was the labels', the rest being the original's outputs.

    `huggingface` says how its folder, where there is one, is opened once it is unpacked: by transformers'
    `from_pretrained`, or, since some layers became rows of factors, by the folder's own `load.py`."""

    keep: float
    weighting: Weighting = Weighting.NONE
    depth_weighting: float = 0.0
    trials: list[Trial] = []
    predicted_ms: float | None = None
    metric_before_finetune: Metric | None = None
    fidelity: Fidelity
    verdict: Literal["better", "trade_off", "not_worth_it"]
    reason: str
    huggingface: Literal["from_pretrained", "load.py"] | None = None
    finetune: list[TrainingPoint] = []
    learning_rate: float | None = None
    labels_share: float | None = None
    layers: list[LayerReport]


class Environment(Contract):
    """Where the numbers were taken."""

    torch: str
    onnxruntime: str
    cpu: str
    threads: int
    seed: int
    device: str


class Report(Contract):
    """The report of a job; `splits` says which rows served for what."""

    model: str
    spec: JobSpec
    environment: Environment
    splits: dict[str, int] = {}
    original: Measured
    control: Control | None = None
    candidates: list[Candidate]
    cross_validation: list[FoldMetrics] = []
    warnings: list[Notice] = []
    seconds: dict[str, float]
