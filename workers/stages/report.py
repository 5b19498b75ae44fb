"""The report: the findings of all stages in one document, and the verdict on each candidate."""

from dataclasses import asdict
from typing import Literal

import torch

from app.contract.plan import LayerPlan, Plan
from app.contract.report import Candidate, Environment, LayerReport, Measured, Metric, Report
from app.contract.status import Stage
from workers.engine.measure import environment
from workers.stages import finetune
from workers.stages.context import Context, load
from workers.stages.measure import CandidateMeasured, Measurements

Verdict = Literal["better", "trade_off", "not_worth_it"]

# Metrics of which less is better.
_FALLING = {"perplexity", "rmse"}


def write_report(context: Context) -> Report:
    """Everything that was measured, and what to make of it."""
    plans = load(context.folder(Stage.DECOMPOSE) / "plans.json", list[Plan])
    found = load(context.folder(Stage.MEASURE) / "measured.json", Measurements)
    return Report(
        model=context.spec.model,
        spec=context.spec,
        environment=_environment(context),
        splits=context.splits.sizes,
        original=found.original,
        control=found.control,
        candidates=[
            _candidate(context, index, plan, found.original, candidate)
            for index, (plan, candidate) in enumerate(zip(plans, found.candidates, strict=True))
        ],
        warnings=context.noticed,
        seconds=_seconds(context),
    )


def verdict(original: Measured, candidate: Measured) -> tuple[Verdict, str]:
    """Whether a candidate is worth having, and why.

    Nothing that is neither smaller nor faster is worth it. Better means cheaper with the metric within the
    noise of the test rows: half the width of the original's confidence interval.
    """
    ratio = _speed_ratio(original, candidate)
    smaller = candidate.parameters < original.parameters
    slower = ratio is not None and ratio >= 1.0
    if not smaller and candidate.macs >= original.macs:
        return "not_worth_it", "no layer has a form that is cheaper within the budget and rules given"
    if not smaller and slower:
        return "not_worth_it", f"it is neither smaller nor faster{_speed(ratio)}"
    if original.metric is None or candidate.metric is None:
        return "trade_off", f"it is cheaper{_speed(ratio)}; without labels only its fidelity can be judged"
    change = f"{original.metric.name} {original.metric.value:.4g} → {candidate.metric.value:.4g}"
    if slower:
        return "trade_off", f"{change}; it is smaller, but not faster{_speed(ratio)}"
    loss, noise = _loss(original.metric, candidate.metric)
    if loss > noise:
        return "trade_off", f"{change}{_speed(ratio)}"
    said = "no worse" if loss <= 0 else "within the noise of the test rows"
    return "better", f"{change}, {said}{_speed(ratio)}"


def _loss(original: Metric, candidate: Metric) -> tuple[float, float]:
    """How much worse the candidate is, and how much of that the number of test rows alone explains."""
    low, high = original.ci95
    rise = candidate.value - original.value
    return (rise if original.name in _FALLING else -rise), (high - low) / 2


def _speed_ratio(original: Measured, candidate: Measured) -> float | None:
    for runtime in ("onnxruntime", "torch"):
        if runtime in original.latency and runtime in candidate.latency:
            return candidate.latency[runtime].p50_ms / original.latency[runtime].p50_ms
    return None


def _speed(ratio: float | None) -> str:
    return "" if ratio is None else f", at {ratio:.2f} of the original's time"


def _candidate(
    context: Context, index: int, plan: Plan, original: Measured, found: CandidateMeasured
) -> Candidate:
    said, reason = verdict(original, found.measured)
    return Candidate(
        **dict(found.measured),
        keep=plan.keep,
        metric_before_finetune=found.metric_before_finetune,
        fidelity=found.fidelity,
        verdict=said,
        reason=reason,
        finetune=finetune.curve(context, f"candidate-{index}"),
        layers=[_layer(layer) for layer in plan.layers],
    )


def _layer(plan: LayerPlan) -> LayerReport:
    return LayerReport(
        name=plan.name,
        method=plan.method.value,
        rank=plan.rank,
        parameters=plan.parameters,
        macs=plan.macs,
        weight_error=plan.weight_error,
        reason=plan.reason,
    )


def _environment(context: Context) -> Environment:
    found = environment.describe(torch.get_num_threads())
    return Environment(**asdict(found), seed=context.spec.seed, device=context.device)


def _seconds(context: Context) -> dict[str, float]:
    finished = {stage: context.folder(stage) / "seconds" for stage in Stage}
    seconds = {stage.value: float(path.read_text()) for stage, path in finished.items() if path.exists()}
    return {**seconds, Stage.PACKAGE.value: context.stage_seconds}
