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
    def perplexity(parameters: int, value: float) -> Measured:
        measured = _measured(parameters, parameters, parameters / 100, value)
        assert measured.metric is not None
        return measured.model_copy(
            update={"metric": measured.metric.model_copy(update={"name": "perplexity"})}
        )

    assert verdict(perplexity(100, 5.0), perplexity(50, 6.0))[0] == "trade_off"
    assert verdict(perplexity(100, 5.0), perplexity(50, 4.0))[0] == "better"
