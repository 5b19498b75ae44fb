"""The verdict follows from what was measured."""

import pytest

from app.contract.report import Fidelity, Latency, Measured, Metric, Quantized
from workers.stages.verdict import lost, slowed, verdict

CLOSE = Fidelity(relative_error=0.1, cosine=0.99, n=100)


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
    said, reason = verdict(_measured(100, 100, 1.0, 0.9), _measured(*candidate), CLOSE)
    assert said == expected
    assert reason


def test_less_is_better_for_perplexity() -> None:
    def perplexity(parameters: int, value: float) -> Measured:
        measured = _measured(parameters, parameters, parameters / 100, value)
        assert measured.metric is not None
        return measured.model_copy(
            update={"metric": measured.metric.model_copy(update={"name": "perplexity"})}
        )

    assert verdict(perplexity(100, 5.0), perplexity(50, 6.0), CLOSE)[0] == "trade_off"
    assert verdict(perplexity(100, 5.0), perplexity(50, 4.0), CLOSE)[0] == "better"


def test_without_a_metric_outputs_further_away_than_zeros_are_not_worth_it() -> None:
    original, candidate = _measured(100, 100, 1.0, None), _measured(50, 50, 0.5, None)
    ruined = CLOSE.model_copy(update={"relative_error": 1.2})
    assert verdict(original, candidate, CLOSE)[0] == "trade_off"
    assert verdict(original, candidate, ruined)[0] == "not_worth_it"


def test_what_is_not_faster_is_not_worth_it_where_time_was_asked_for() -> None:
    original, slower = _measured(100, 100, 1.0, 0.9), _measured(50, 50, 1.1, 0.9)
    assert verdict(original, slower, CLOSE)[0] == "trade_off"
    assert verdict(original, slower, CLOSE, for_time=True)[0] == "not_worth_it"
    assert verdict(original, _measured(50, 50, 0.5, 0.9), CLOSE, for_time=True)[0] == "better"


def _int8(milliseconds: float, top1: float | None, fidelity: Fidelity = CLOSE) -> Quantized:
    floating = _measured(1, 1, milliseconds, top1)
    return Quantized(
        bytes=1, latency=floating.latency["onnxruntime"], metric=floating.metric, fidelity=fidelity
    )


def test_an_int8_form_that_is_slower_is_told_of() -> None:
    floating = _measured(50, 50, 1.0, 0.9)
    assert slowed(floating, _int8(0.9, 0.9)) is None
    assert "1.50 of the time" in (slowed(floating, _int8(1.5, 0.9)) or "")
    untimed = _int8(1.5, 0.9).model_copy(update={"latency": None})
    assert slowed(floating, untimed) is None


def test_an_int8_form_that_loses_more_than_the_noise_is_told_of() -> None:
    floating = _measured(50, 50, 1.0, 0.9)
    assert lost(floating, _int8(1.0, 0.95)) is None
    assert lost(floating, _int8(1.0, 0.885)) is None
    assert "top1 0.9 → 0.87" in (lost(floating, _int8(1.0, 0.87)) or "")


def test_without_labels_an_int8_form_that_is_no_better_than_zeros_is_told_of() -> None:
    floating, ruined = _measured(50, 50, 1.0, None), CLOSE.model_copy(update={"relative_error": 1.2})
    assert lost(floating, _int8(1.0, None)) is None
    assert "zeros" in (lost(floating, _int8(1.0, None, ruined)) or "")
