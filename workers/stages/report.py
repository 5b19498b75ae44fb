"""The report: the findings of all stages in one document."""

from dataclasses import asdict

import torch

from app.contract.plan import LayerPlan, Plan
from app.contract.report import Candidate, Environment, LayerReport, Measured, Report, Trial
from app.contract.status import Stage
from workers.engine.measure import environment
from workers.stages import cross_validation, finetune, folders
from workers.stages.context import Context
from workers.stages.measure import CandidateMeasured, measured
from workers.stages.verdict import verdict


def write_report(context: Context) -> Report:
    """Everything that was measured, and what to make of it."""
    plans = finetune.carried_out(context)
    found = measured(context)
    return Report(
        model=context.spec.model,
        spec=context.spec,
        environment=_environment(context),
        splits=context.splits.sizes,
        original=found.original,
        control=found.control,
        candidates=[
            _candidate(context, index, *plan, found.original, candidate)
            for index, (plan, candidate) in enumerate(zip(plans, found.candidates, strict=True))
        ],
        cross_validation=cross_validation.found(context),
        warnings=context.noticed,
        seconds=_seconds(context),
    )


def _candidate(
    context: Context,
    index: int,
    plan: Plan,
    tried: list[Trial],
    original: Measured,
    found: CandidateMeasured,
) -> Candidate:
    for_time = context.spec.target.of == "latency"
    said, reason = verdict(original, found.measured, found.fidelity, for_time=for_time)
    return Candidate(
        **dict(found.measured),
        keep=plan.keep,
        weighting=plan.weighting,
        depth_weighting=plan.depth_weighting,
        trials=tried,
        predicted_ms=plan.predicted_ms,
        metric_before_finetune=found.metric_before_finetune,
        fidelity=found.fidelity,
        verdict=said,
        reason=reason,
        huggingface=folders.opened_by(context, f"candidate-{index}"),
        finetune=finetune.curve(context, f"candidate-{index}"),
        **finetune.pace(context, f"candidate-{index}")._asdict(),
        layers=[_layer(layer) for layer in plan.layers],
    )


def _layer(plan: LayerPlan) -> LayerReport:
    return LayerReport(
        name=plan.name,
        method=plan.method.value,
        rank=plan.rank,
        parameters=plan.parameters,
        macs=plan.macs,
        latency_ms=plan.latency_ms,
        discarded_energy=plan.discarded_energy,
        weight_error=plan.weight_error,
        output_error=plan.output_error,
        warnings=plan.warnings,
        reason=plan.reason,
    )


def _environment(context: Context) -> Environment:
    found = environment.describe(torch.get_num_threads())
    return Environment(**asdict(found), seed=context.spec.seed, device=context.device)


def _seconds(context: Context) -> dict[str, float]:
    finished = {stage: context.folder(stage) / "seconds" for stage in Stage}
    seconds = {stage.value: float(path.read_text()) for stage, path in finished.items() if path.exists()}
    return {**seconds, Stage.PACKAGE.value: context.stage_seconds}
