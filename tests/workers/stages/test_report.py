"""The verdict follows from what was measured."""

import pytest

from app.contract.report import Latency, Measured, Metric
from workers.stages.report import verdict


def _measured(parameters: int, macs: int, milliseconds: float, top1: float | None) -> Measured:
    latency = Latency(batch=1, threads=1, p50_ms=milliseconds, p95_ms=1, iqr_ms=0, runs=30)
    metric = None
    if top1 is not None:
        metric = Metric(name="top1", value=top1, n=1000, ci95=(top1 - 0.02, top1 + 0.02))
    return Measured(
        parameters=parameters, macs=macs, bytes={}, latency={"onnxruntime": latency}, metric=metric
    )


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ((50, 50, 0.5, 0.90), "better"),
        ((50, 50, 0.5, 0.89), "better"),
        ((50, 50, 0.5, 0.80), "trade_off"),
        ((50, 50, 1.2, 0.90), "trade_off"),
        ((100, 100, 1.0, 0.90), "not_worth_it"),
        ((100, 50, 1.1, 0.90), "not_worth_it"),
        ((50, 50, 0.5, None), "trade_off"),
    ],
)
def test_the_verdict(candidate: tuple[int, int, float, float | None], expected: str) -> None:
    said, reason = verdict(_measured(100, 100, 1.0, 0.9), _measured(*candidate))
    assert said == expected
    assert reason


def test_less_is_better_for_perplexity() -> None:
    original, worse = (_measured(p, p, 1.0 - i / 2, v) for i, (p, v) in enumerate(((100, 5.0), (50, 6.0))))
    metrics = [m.metric.model_copy(update={"name": "perplexity"}) for m in (original, worse) if m.metric]
    original, worse = (
        m.model_copy(update={"metric": metric}) for m, metric in zip((original, worse), metrics, strict=True)
    )
    assert verdict(original, worse)[0] == "trade_off"
    assert (
        verdict(
            worse.model_copy(update={"parameters": 100, "macs": 100}),
            original.model_copy(update={"parameters": 50, "macs": 50}),
        )[0]
        != "not_worth_it"
    )
