import pytest

from app.comparison import (
    MINUS,
    Cell,
    Row,
    change,
    compare,
    count,
    int8,
    joules,
    metric_value,
    milliseconds,
    rate,
    resources,
    size,
)
from app.contract.report import Fidelity, Metric, Report
from tests.app.client.service import REPORT
from tests.app.dashboard.reports import with_resources


@pytest.fixture
def report() -> Report:
    return Report.model_validate(REPORT)


def rows(report: Report) -> dict[str, Row]:
    return {row.label: row for row in compare(report)}


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (36412928, "36.4 M"), (658922, "659 k"), (2.5e9, "2.50 G")],
)
def test_counts_have_three_digits(number: int, text: str) -> None:
    assert count(number) == text


def test_units_follow_their_numbers() -> None:
    assert size(2782225) == "2.78 MB"
    assert size(12) == "12 B"
    assert milliseconds(0.41234) == "0.412 ms"
    assert milliseconds(1234.5) == "1234 ms"
    assert change(2.0, 1.0) == f"{MINUS}50.0 %"
    assert change(0, 1) == ""


def test_rates_and_energies_have_three_digits() -> None:
    assert [rate(number) for number in (858.168, 1383.9, 0.25)] == ["858", "1.38 k", "0.250"]
    assert [joules(number) for number in (2.5, 0.01234, 0.000321)] == ["2.50 J", "12.3 mJ", "0.321 mJ"]


def test_costs_are_better_when_lower(report: Report) -> None:
    cell = rows(report)["MACs"].candidates[0]
    assert cell == Cell("18.2 M", f"{MINUS}50.0 %", better=True)


def test_a_metric_within_the_confidence_interval_is_neither_better_nor_worse(report: Report) -> None:
    near = Metric(name="top1", value=0.905, n=2000, ci95=(0.89, 0.918))
    candidate = report.candidates[0].model_copy(update={"metric": near})
    assert rows(report)["Top-1"].candidates[0].better is False
    near_report = report.model_copy(update={"candidates": [candidate]})
    assert rows(near_report)["Top-1"].candidates[0] == Cell(
        "90.5 % [89.0, 91.8]", f"{MINUS}0.80 points", better=None
    )


def test_a_lower_perplexity_is_better(report: Report) -> None:
    before = Metric(name="perplexity", value=5.0, n=10, ci95=(4.9, 5.1))
    after = before.model_copy(update={"value": 4.5})
    original = report.original.model_copy(update={"metric": before})
    candidate = report.candidates[0].model_copy(update={"metric": after})
    changed = report.model_copy(update={"original": original, "candidates": [candidate]})
    cell = rows(changed)["Perplexity"].candidates[0]
    assert (cell.change, cell.better) == (f"{MINUS}10.0 %", True)


def test_what_nobody_measured_has_no_row(report: Report) -> None:
    fidelity = Fidelity(relative_error=0.1, cosine=0.9, n=8)
    candidate = report.candidates[0].model_copy(update={"metric": None, "fidelity": fidelity})
    original = report.original.model_copy(update={"metric": None})
    unmeasured = rows(report.model_copy(update={"original": original, "candidates": [candidate]}))
    assert not unmeasured.keys() & {"Top-1", "Peak memory", "Same class as the original"}
    assert {"Parameters", "Cosine to the original"} <= unmeasured.keys()


def test_a_fraction_is_shown_in_percent_and_others_as_they_are() -> None:
    assert metric_value(Metric(name="top5", value=0.99, n=1, ci95=(0.98, 1.0))) == "99.0 % [98.0, 100.0]"
    assert metric_value(Metric(name="rmse", value=1.23456, n=1, ci95=(1.0, 2.0))) == "1.235 [1.000, 2.000]"


def test_resources_are_side_by_side_and_more_examples_are_better() -> None:
    found = {row.label: row for row in resources(Report.model_validate(with_resources(REPORT)))}
    assert list(found) == [
        "Weights moved",
        "Activations moved",
        "MACs per byte moved",
        "Examples a second, batch 1",
        "Examples a second, batch 8",
        "Energy per inference",
    ]
    assert found["Weights moved"] == Row(
        "Weights moved", "2.64 MB", [Cell("1.20 MB", f"{MINUS}54.5 %", True)]
    )
    assert found["MACs per byte moved"].candidates[0].better is None
    assert found["Examples a second, batch 1"].candidates == [Cell("1.67 k", "+66.7 %", better=True)]
    assert (found["Examples a second, batch 8"].original, found["Energy per inference"].original) == (
        "1.10 k",
        "25.0 mJ",
    )
    assert found["Examples a second, batch 8"].candidates == [Cell("–")]


def test_int8_forms_are_against_the_originals_int8_form() -> None:
    found = {row.label: row for row in int8(Report.model_validate(with_resources(REPORT)))}
    assert found["Size of the file"] == Row(
        "Size of the file", "700 kB", [Cell("350 kB", f"{MINUS}50.0 %", True)]
    )
    assert found["Time over the float form's"] == Row("Time over the float form's", "0.80", [Cell("1.20")])
    assert found["Top-1"].candidates[0].change == f"{MINUS}12.00 points"
    assert found["Cosine to the original"] == Row("Cosine to the original", "0.9990", [Cell("0.9800")])


def test_a_report_of_an_earlier_version_has_neither(report: Report) -> None:
    assert resources(report) == int8(report) == []
    assert report.original.throughput == []
    assert report.candidates[0].quantized is None
