"""A report put side by side: what the command line and the dashboard both show, in the same words."""

from collections.abc import Callable
from dataclasses import dataclass

from app.contract.report import LOWER_IS_BETTER, Candidate, Fidelity, Measured, Metric, Report

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
RUNTIMES = {"onnxruntime": "ONNX Runtime", "torch": "PyTorch"}
METRICS = {"top1": "Top-1", "top5": "Top-5", "perplexity": "Perplexity", "rmse": "RMSE", "r2": "R²"}
FRACTIONS = frozenset({"top1", "top5"})


@dataclass(frozen=True)
class Cell:
    """One number of a candidate; `change` is against the original, `better` is None within the noise."""

    text: str
    change: str = ""
    better: bool | None = None


@dataclass(frozen=True)
class Row:
    """One quantity of the original and of every candidate, in their order."""

    label: str
    original: str
    candidates: list[Cell]


def compare(report: Report) -> list[Row]:
    """The rows of the before / after table; a quantity that nobody measured has no row."""
    original, candidates = report.original, report.candidates
    rows = [
        _cost("Parameters", count, lambda network: network.parameters, original, candidates),
        _cost("MACs", count, lambda network: network.macs, original, candidates),
        *(_bytes(output, original, candidates) for output in original.bytes),
        *(_latency(runtime, original, candidates) for runtime in original.latency),
        _cost("Peak memory", size, lambda network: network.peak_memory_bytes, original, candidates),
        *_quality(report),
        *_fidelity([candidate.fidelity for candidate in candidates]),
    ]
    return [row for row in rows if row.original != NONE or any(cell.text != NONE for cell in row.candidates)]


def count(number: float) -> str:
    """Three significant digits with a decimal prefix: 36412928 → `36.4 M`."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{_digits(number / factor)} {prefix}"
    return f"{number:g}"


def size(number: float) -> str:
    """Bytes with a decimal prefix: 2782225 → `2.78 MB`."""
    return f"{count(number)}B" if number >= 1e3 else f"{number:g} B"


def milliseconds(number: float) -> str:
    """Three significant digits: `0.412 ms`."""
    return f"{_digits(number)} ms"


def change(before: float, after: float) -> str:
    """The relative change in percent with its sign, or nothing where it has no meaning."""
    if not before:
        return ""
    return f"{100 * (after / before - 1):+.1f} %".replace("-", MINUS)


def metric_name(name: str) -> str:
    """A metric's name for people."""
    return METRICS.get(name, name)


def metric_value(metric: Metric | None) -> str:
    """A metric with its confidence interval: `93.1 % [92.4, 93.8]`."""
    if metric is None:
        return NONE
    scale, unit, digits = (100, " %", 1) if metric.name in FRACTIONS else (1, "", 3)
    low, high = (f"{scale * bound:.{digits}f}" for bound in metric.ci95)
    return f"{scale * metric.value:.{digits}f}{unit} [{low}, {high}]"


def _digits(number: float) -> str:
    return f"{number:#.3g}".rstrip(".") if number < 1000 else f"{number:.0f}"


def _cost(
    label: str,
    show: Callable[[float], str],
    of: Callable[[Measured], float | None],
    original: Measured,
    candidates: list[Candidate],
) -> Row:
    before = of(original)
    cells = [_cost_cell(show, before, of(candidate)) for candidate in candidates]
    return Row(label, NONE if before is None else show(before), cells)


def _cost_cell(show: Callable[[float], str], before: float | None, after: float | None) -> Cell:
    if after is None:
        return Cell(NONE)
    if not before:
        return Cell(show(after))
    better = None if abs(after / before - 1) < 0.0005 else after < before
    return Cell(show(after), change(before, after), better)


def _bytes(output: str, original: Measured, candidates: list[Candidate]) -> Row:
    return _cost(f"Size of .{output}", size, lambda network: network.bytes.get(output), original, candidates)


def _latency(runtime: str, original: Measured, candidates: list[Candidate]) -> Row:
    def median(network: Measured) -> float | None:
        latency = network.latency.get(runtime)
        return latency.p50_ms if latency else None

    batch = original.latency[runtime].batch
    label = f"{RUNTIMES.get(runtime, runtime)}, batch {batch}, median"
    return _cost(label, milliseconds, median, original, candidates)


def _quality(report: Report) -> list[Row]:
    before = report.original.metric
    if before is None:
        return []
    name, candidates = metric_name(before.name), report.candidates
    rows = [Row(name, metric_value(before), [_metric_cell(before, item.metric) for item in candidates])]
    untuned = [Cell(metric_value(item.metric_before_finetune)) for item in candidates]
    rows.append(Row(f"{name} before fine-tuning", NONE, untuned))
    if report.control:
        blank = [Cell(NONE) for _ in candidates]
        rows.append(Row(f"{name} of the control", metric_value(report.control.metric), blank))
    return rows


def _metric_cell(before: Metric, after: Metric | None) -> Cell:
    if after is None:
        return Cell(NONE)
    text, moved = metric_value(after), after.value - before.value
    if before.name in FRACTIONS:
        difference = f"{100 * moved:+.2f} points".replace("-", MINUS)
    else:
        difference = change(before.value, after.value)
    low, high = before.ci95
    better = None if low <= after.value <= high else (moved < 0) == (before.name in LOWER_IS_BETTER)
    return Cell(text, difference, better)


def _fidelity(found: list[Fidelity]) -> list[Row]:
    agreements = [item.top1_agreement for item in found]
    return [
        Row("Cosine to the original", NONE, [Cell(f"{item.cosine:.4f}") for item in found]),
        Row("Relative error of the output", NONE, [Cell(f"{item.relative_error:.4f}") for item in found]),
        Row(
            "Same class as the original",
            NONE,
            [Cell(NONE if value is None else f"{100 * value:.1f} %") for value in agreements],
        ),
    ]
