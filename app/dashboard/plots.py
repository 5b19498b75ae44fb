"""Plots as data: a template draws them as SVG. Coordinates are in user units of a fixed view box."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.comparison import FRACTIONS, count, metric_name
from app.contract.report import Candidate, Metric, Report

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44
BESIDE = 9  # the control stands on the original's abscissa: drawn beside it, both can be seen

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A measured point with its confidence interval; `kind` is `original`, `control` or `candidate`."""

    kind: str
    x: float
    y: float
    low: float
    high: float
    name: str
    title: str
    label_y: float


@dataclass(frozen=True)
class Line:
    """A curve; `points` are in SVG's notation, `number` gives its colour."""

    number: int
    points: str
    name: str


@dataclass(frozen=True)
class Plot:
    """Everything that is drawn; `description` says the same to those who cannot see it."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def quality_against_parameters(report: Report) -> Plot | None:
    """The task metric of original, control and candidates over their parameters; nothing without a metric."""
    original = report.original
    if original.metric is None:
        return None
    measured = [("original", "original", original.parameters, original.metric)]
    if report.control:
        measured.append(("control", "control", original.parameters, report.control.metric))
    for candidate in report.candidates:
        if candidate.metric:
            name = f"keep {candidate.keep:g}"
            measured.append(("candidate", name, candidate.parameters, candidate.metric))
    unit = 100 if original.metric.name in FRACTIONS else 1
    bounds = [unit * bound for *_, metric in measured for bound in metric.ci95]
    x_low, x_high = 0.0, 1.12 * max(parameters for _, _, parameters, _ in measured)
    y_low, y_high = _padded(bounds, 0.12)  # room for the names
    x, y = _scale(x_low, x_high, LEFT, WIDTH - RIGHT), _scale(y_low, y_high, HEIGHT - BOTTOM, TOP)
    name = metric_name(original.metric.name)
    return Plot(
        title=f"{name} against parameters",
        description="; ".join(_told(label, number, metric, unit) for _, label, number, metric in measured),
        x_label="parameters",
        y_label=f"{name}, %" if unit == 100 else name,
        x_ticks=[Tick(x(value), count(value)) for value in ticks(x_low, x_high)],
        y_ticks=[Tick(y(value), text) for value, text in labelled(ticks(y_low, y_high))],
        marks=[_mark(*item, x, y, unit) for item in measured],
        lines=[],
    )


def training_curves(candidates: Sequence[Candidate], quantity: str) -> Plot | None:
    """`loss` or `metric` over the steps of fine-tuning, one line a candidate; nothing where there is none."""
    label, unit = _quantity(candidates, quantity)
    curves = [(candidate.keep, _curve(candidate, quantity, unit)) for candidate in candidates]
    points = [point for _, curve in curves for point in curve]
    if len({step for step, _ in points}) < 2:
        return None
    x_high = max(step for step, _ in points)
    y_low, y_high = _padded([value for _, value in points], 0.05)
    x, y = _scale(0, x_high, LEFT, WIDTH - RIGHT), _scale(y_low, y_high, HEIGHT - BOTTOM, TOP)
    ends = "; ".join(
        f"keep {keep:g}: {curve[0][1]:.4g} to {curve[-1][1]:.4g}" for keep, curve in curves if curve
    )
    return Plot(
        title=f"Fine-tuning: {label.removesuffix(', %')}",
        description=ends,
        x_label="step",
        y_label=label,
        x_ticks=[Tick(x(value), text) for value, text in labelled(ticks(0, x_high))],
        y_ticks=[Tick(y(value), text) for value, text in labelled(ticks(y_low, y_high))],
        marks=[],
        lines=[
            Line(number, " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve), f"keep {keep:g}")
            for number, (keep, curve) in enumerate(curves)
            if curve
        ],
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in [low, high], 1, 2 or 5 times a power of ten apart; about `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def labelled(values: Sequence[float]) -> Iterable[tuple[float, str]]:
    """Each value with a text of as many decimals as tell it from its neighbours."""
    step = values[1] - values[0] if len(values) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(value, f"{value:.{decimals}f}") for value in values]


def _quantity(candidates: Sequence[Candidate], quantity: str) -> tuple[str, float]:
    """What a curve shows, in words, and the factor it is shown with."""
    if quantity == "loss":
        return "loss", 1
    name = next((candidate.metric.name for candidate in candidates if candidate.metric), "metric")
    percent = name in FRACTIONS
    return f"{metric_name(name)} on held-out data{', %' if percent else ''}", 100 if percent else 1


def _curve(candidate: Candidate, quantity: str, unit: float) -> list[tuple[int, float]]:
    values = [(point.step, getattr(point, quantity)) for point in candidate.finetune]
    return [(step, unit * value) for step, value in values if value is not None and math.isfinite(value)]


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = share * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _mark(kind: str, name: str, parameters: int, metric: Metric, x: Scale, y: Scale, unit: float) -> Mark:
    low, high = metric.ci95
    return Mark(
        kind=kind,
        x=x(parameters) + (BESIDE if kind == "control" else 0),
        y=y(unit * metric.value),
        low=y(unit * low),
        high=y(unit * high),
        name=name,
        title=_told(name, parameters, metric, unit),
        label_y=y(unit * high) - 6 if kind == "original" else y(unit * low) + 14,
    )


def _told(name: str, parameters: int, metric: Metric, unit: float) -> str:
    low, high = (unit * bound for bound in metric.ci95)
    value = f"{unit * metric.value:.4g}, 95 % interval {low:.4g} to {high:.4g}"
    return f"{name}: {count(parameters)} parameters, {metric_name(metric.name)} {value}"
