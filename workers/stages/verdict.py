"""Whether a candidate is worth having: what was measured, in one word and one sentence."""

from typing import Literal

from app.contract.report import LOWER_IS_BETTER, Fidelity, Measured, Metric, Quantized

Verdict = Literal["better", "trade_off", "not_worth_it"]


def verdict(
    original: Measured, candidate: Measured, fidelity: Fidelity, *, for_time: bool = False
) -> tuple[Verdict, str]:
    """The verdict and its reason. `for_time` says that time was asked for: then what is not faster is not
    worth it, however small.

    Nothing that is neither smaller nor faster is worth it, nor what computes something else altogether.
    Better means cheaper, with the metric within the noise of the test rows: half the width of the original's
    confidence interval.
    """
    ratio = _speed_ratio(original, candidate)
    smaller = candidate.parameters < original.parameters
    if not smaller and candidate.macs >= original.macs:
        return "not_worth_it", "no layer has a form that is cheaper within the budget and rules given"
    if not smaller and _slower(ratio):
        return "not_worth_it", f"it is neither smaller nor faster{_speed(ratio)}"
    if for_time and _slower(ratio):
        return "not_worth_it", f"it is not faster{_speed(ratio)}, and is not shipped"
    if original.metric is None or candidate.metric is None:
        return _by_fidelity(fidelity, ratio)
    return _by_metric(original.metric, candidate.metric, ratio)


def _by_fidelity(fidelity: Fidelity, ratio: float | None) -> tuple[Verdict, str]:
    if fidelity.relative_error >= 1.0:
        return "not_worth_it", "its outputs are no closer to the original's than zeros would be"
    return "trade_off", f"it is cheaper{_speed(ratio)}; without labels only its fidelity can be judged"


def _by_metric(original: Metric, candidate: Metric, ratio: float | None) -> tuple[Verdict, str]:
    change = f"{original.name} {original.value:.4g} → {candidate.value:.4g}"
    if _slower(ratio):
        return "trade_off", f"{change}; it is smaller, but not faster{_speed(ratio)}"
    if _is_worse(original, candidate):
        return "trade_off", f"{change}{_speed(ratio)}"
    said = "no worse" if _loss(original, candidate) <= 0 else "within the noise of the test rows"
    return "better", f"{change}, {said}{_speed(ratio)}"


def not_faster(original: Measured, candidate: Measured) -> bool:
    """Whether a candidate was measured to take at least the original's time."""
    return _slower(_speed_ratio(original, candidate))


def slowed(floating: Measured, quantized: Quantized) -> str | None:
    """What to say of an int8 form that is not faster than its float form; None where it is."""
    before, after = floating.latency.get("onnxruntime"), quantized.latency
    if before is None or after is None or not _slower(after.p50_ms / before.p50_ms):
        return None
    return f"is not faster than its float form: it takes {after.p50_ms / before.p50_ms:.2f} of the time"


def lost(floating: Measured, quantized: Quantized) -> str | None:
    """What to say of an int8 form that is worse than its float form beyond the noise of the test rows;
    without labels, of one whose outputs are no closer to the original's than zeros."""
    before, after = floating.metric, quantized.metric
    if before is None or after is None:
        far = quantized.fidelity.relative_error >= 1.0
        return "has outputs no closer to the original's than zeros would be" if far else None
    if not _is_worse(before, after):
        return None
    change = f"{before.name} {before.value:.4g} → {after.value:.4g}"
    return f"is worse than its float form: {change}, more than the noise of the test rows"


def _is_worse(before: Metric, after: Metric) -> bool:
    low, high = before.ci95
    return _loss(before, after) > (high - low) / 2


def _loss(before: Metric, after: Metric) -> float:
    rise = after.value - before.value
    return rise if before.name in LOWER_IS_BETTER else -rise


def _speed_ratio(original: Measured, candidate: Measured) -> float | None:
    """The candidate's median time over the original's, in the runtime that ships where it was measured."""
    for runtime in ("onnxruntime", "torch"):
        if runtime in original.latency and runtime in candidate.latency:
            return candidate.latency[runtime].p50_ms / original.latency[runtime].p50_ms
    return None


def _slower(ratio: float | None) -> bool:
    return ratio is not None and ratio >= 1.0


def _speed(ratio: float | None) -> str:
    return "" if ratio is None else f", at {ratio:.2f} of the original's time"
