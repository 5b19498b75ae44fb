"""A report put side by side: what the command line and the dashboard both show, in the same words."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.contract.report import LOWER_IS_BETTER, Fidelity, Measured, Metric, Quantized, Report

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
    original, networks = report.original, [report.original, *report.candidates]
    return _known(
        [
            _cost("Parameters", count, [network.parameters for network in networks]),
            _cost("MACs", count, [network.macs for network in networks]),
            *(
                _cost(f"Size of .{output}", size, [network.bytes.get(output) for network in networks])
                for output in original.bytes
            ),
            *(_latency(runtime, networks) for runtime in original.latency),
            _cost("Peak memory", size, [network.peak_memory_bytes for network in networks]),
            *_quality(report),
            *_fidelity([None, *(candidate.fidelity for candidate in report.candidates)]),
        ]
    )


def resources(report: Report) -> list[Row]:
    """What an inference moves and takes, and how many there are in a second; empty for old reports."""
    networks = [report.original, *report.candidates]
    moved = [network.bytes_moved for network in networks]
    intensities = [network.arithmetic_intensity for network in networks]
    energies = [network.energy_per_inference_joules for network in networks]
    batches = [measured.batch for measured in report.original.throughput]
    return _known(
        [
            _cost("Weights moved", size, [None if it is None else it.weights for it in moved]),
            _cost("Activations moved", size, [None if it is None else it.activations for it in moved]),
            _cost("MACs per byte moved", _digits, intensities, better=None),
            *(_throughput(batch, networks) for batch in batches),
            _cost("Energy per inference", joules, energies),
        ]
    )


def int8(report: Report) -> list[Row]:
    """The int8 forms, each change against the original's; empty where nothing was quantized."""
    networks = [report.original, *report.candidates]
    forms = [network.quantized for network in networks]
    metrics = [None if form is None else form.metric for form in forms]
    before = report.original.metric
    return _known(
        [
            _cost("Size of the file", size, [None if form is None else form.bytes for form in forms]),
            _cost("ONNX Runtime, median", milliseconds, [_int8_median(form) for form in forms]),
            _row("Time over the float form's", [_int8_ratio(network) for network in networks]),
            *([] if before is None else [_metrics(metric_name(before.name), metrics)]),
            *_fidelity([None if form is None else form.fidelity for form in forms]),
        ]
    )


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


def rate(number: float) -> str:
    """Three significant digits, with a prefix from 1000 on: `858`, `1.38 k`."""
    return count(number) if number >= 1e3 else _digits(number)


def joules(number: float) -> str:
    """Three significant digits, in joules or thousandths of them: `12.3 mJ`."""
    return f"{_digits(number)} J" if number >= 1 else f"{_digits(1000 * number)} mJ"


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


def _known(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.original != NONE or any(cell.text != NONE for cell in row.candidates)]


def _row(label: str, texts: Sequence[str]) -> Row:
    """Without changes; the original's first."""
    return Row(label, texts[0], [Cell(text) for text in texts[1:]])


def _cost(
    label: str,
    show: Callable[[float], str],
    values: Sequence[float | None],
    better: Callable[[float, float], bool] | None = operator.lt,
) -> Row:
    """The original's value first; `better` is whether the first of two values is the better one."""
    before = values[0]
    cells = [_cost_cell(show, before, after, better) for after in values[1:]]
    return Row(label, NONE if before is None else show(before), cells)


def _cost_cell(
    show: Callable[[float], str],
    before: float | None,
    after: float | None,
    better: Callable[[float, float], bool] | None,
) -> Cell:
    if after is None:
        return Cell(NONE)
    if not before:
        return Cell(show(after))
    if better is None or abs(after / before - 1) < 0.0005:
        return Cell(show(after), change(before, after))
    return Cell(show(after), change(before, after), better(after, before))


def _latency(runtime: str, networks: Sequence[Measured]) -> Row:
    batch = networks[0].latency[runtime].batch
    found = [network.latency.get(runtime) for network in networks]
    label = f"{RUNTIMES.get(runtime, runtime)}, batch {batch}, median"
    return _cost(label, milliseconds, [None if it is None else it.p50_ms for it in found])


def _throughput(batch: int, networks: Sequence[Measured]) -> Row:
    """Examples a second; one batch size of all networks."""
    found = [{it.batch: it.examples_per_second for it in network.throughput} for network in networks]
    label = f"Examples a second, batch {batch}"
    return _cost(label, rate, [speeds.get(batch) for speeds in found], better=operator.gt)


def _int8_median(form: Quantized | None) -> float | None:
    return None if form is None or form.latency is None else form.latency.p50_ms


def _int8_ratio(network: Measured) -> str:
    floating, median = network.latency.get("onnxruntime"), _int8_median(network.quantized)
    return NONE if floating is None or median is None else f"{median / floating.p50_ms:.2f}"


def _quality(report: Report) -> list[Row]:
    before = report.original.metric
    if before is None:
        return []
    name, candidates = metric_name(before.name), report.candidates
    untuned = [metric_value(item.metric_before_finetune) for item in candidates]
    rows = [
        _metrics(name, [before, *(item.metric for item in candidates)]),
        _row(f"{name} before fine-tuning", [NONE, *untuned]),
    ]
    if report.control:
        blank = [NONE for _ in candidates]
        rows.append(_row(f"{name} of the control", [metric_value(report.control.metric), *blank]))
    return rows


def _metrics(label: str, metrics: Sequence[Metric | None]) -> Row:
    """The original's first."""
    before = metrics[0]
    return Row(label, metric_value(before), [_metric_cell(before, after) for after in metrics[1:]])


def _metric_cell(before: Metric | None, after: Metric | None) -> Cell:
    if before is None or after is None:
        return Cell(metric_value(after))
    text, moved = metric_value(after), after.value - before.value
    if before.name in FRACTIONS:
        difference = f"{100 * moved:+.2f} points".replace("-", MINUS)
    else:
        difference = change(before.value, after.value)
    low, high = before.ci95
    better = None if low <= after.value <= high else (moved < 0) == (before.name in LOWER_IS_BETTER)
    return Cell(text, difference, better)


def _fidelity(found: Sequence[Fidelity | None]) -> list[Row]:
    return [
        _row("Cosine to the original", [NONE if it is None else f"{it.cosine:.4f}" for it in found]),
        _row(
            "Relative error of the output",
            [NONE if it is None else f"{it.relative_error:.4f}" for it in found],
        ),
        _row("Same class as the original", [_agreement(it) for it in found]),
    ]


def _agreement(fidelity: Fidelity | None) -> str:
    if fidelity is None or fidelity.top1_agreement is None:
        return NONE
    return f"{100 * fidelity.top1_agreement:.1f} %"
