import pytest

from app.contract.report import Report, TrainingPoint
from app.dashboard.plots import labelled, quality_against_parameters, ticks, training_curves
from tests.app.dashboard.reports import report


def found(*keeps: float) -> Report:
    return Report.model_validate(report(*keeps))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0.12, 0.93, [0.2, 0.4, 0.6, 0.8]),
        (88.1, 92.7, [89, 90, 91, 92]),
        (-3, 3, [-2, 0, 2]),
        (0, 655_000, [0, 200_000, 400_000, 600_000]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_labels_have_the_decimals_that_tell_them_apart() -> None:
    assert [text for _, text in labelled([0.0, 0.05, 0.1])] == ["0.00", "0.05", "0.10"]
    assert [text for _, text in labelled([80.0, 90.0])] == ["80", "90"]


def test_every_network_is_a_point_within_the_axes() -> None:
    plot = quality_against_parameters(found(0.5, 0.25))
    assert plot is not None
    assert [mark.name for mark in plot.marks] == ["original", "control", "keep 0.5", "keep 0.25"]
    for mark in plot.marks:
        assert plot.left <= mark.x <= plot.right
        assert plot.top <= mark.high < mark.y < mark.low <= plot.bottom
    original, _, half, quarter = plot.marks
    assert quarter.x < half.x < original.x
    assert original.y < half.y, "a better accuracy stands higher"


def test_the_scale_is_linear() -> None:
    plot = quality_against_parameters(found(0.5, 0.25))
    assert plot is not None
    original, _, half, quarter = plot.marks
    assert (original.x - plot.left) / (half.x - plot.left) == pytest.approx(658_922 / 300_000)
    assert (half.x - plot.left) / (quarter.x - plot.left) == pytest.approx(2.0)


def test_those_who_cannot_see_it_are_told_the_numbers() -> None:
    plot = quality_against_parameters(found(0.5))
    assert plot is not None
    assert "original: 659 k parameters, Top-1 91.3, 95 % interval 90 to 92.5" in plot.description
    assert "keep 0.5: 300 k parameters" in plot.description


def test_without_a_metric_there_is_no_plot_of_it() -> None:
    unmeasured = found(0.5)
    original = unmeasured.original.model_copy(update={"metric": None})
    assert quality_against_parameters(unmeasured.model_copy(update={"original": original})) is None


def test_a_curve_falls_from_its_first_point_to_its_last() -> None:
    plot = training_curves(found(0.5, 0.25).candidates, "loss")
    assert plot is not None
    assert [line.name for line in plot.lines] == ["keep 0.5", "keep 0.25"]
    points = [tuple(map(float, point.split(","))) for point in plot.lines[0].points.split()]
    assert len(points) == 20
    assert points[0][0] == plot.left
    assert points[-1][0] == plot.right
    assert points == sorted(points), "left to right, and down as the loss falls"


def test_one_point_is_no_curve() -> None:
    assert training_curves(found(0.5).candidates, "metric") is None


def test_a_constant_or_broken_loss_can_still_be_drawn() -> None:
    curve = [TrainingPoint(step=step, loss=1.0) for step in (0, 1, 2)]
    broken = [*curve, TrainingPoint(step=3, loss=float("nan"))]
    candidate = found(0.5).candidates[0].model_copy(update={"finetune": broken})
    plot = training_curves([candidate], "loss")
    assert plot is not None
    assert "nan" not in plot.lines[0].points
    assert len(plot.lines[0].points.split()) == 3
