"""The comparison in pictures: SVG, drawn by hand, one panel for each case."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from app.dashboard.plots import labelled, ticks
from benchmarks.peers.cells import Cell
from benchmarks.peers.table import Measured

_WIDTH, _HEIGHT, _LEGEND = 300, 210, 20  # of a panel, and of a line of the legend
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 26, 40
_COLOURS = ("#c1121f", "#1d4e89", "#5fa8d3", "#2a9d8f", "#8ab17d", "#e9a03b", "#8338ec", "#6c757d")

Value = Callable[[Cell], float | None]


@dataclass(frozen=True)
class _Axis:
    """What is drawn along an axis: a label, the value of a cell, and whether by its logarithm."""

    label: str
    value: Value
    logarithmic: bool = False

    def of(self, cell: Cell) -> float | None:
        """The coordinate, in the axis's own unit."""
        value = self.value(cell)
        if value is None or not self.logarithmic:
            return value
        return math.log10(max(value, 1e-3))


_DELIVERED = _Axis(
    "accuracy as delivered, %", lambda cell: None if cell.before is None else 100 * cell.before
)
_TRAINED = _Axis(
    "accuracy after fine-tuning, %", lambda cell: None if cell.after is None else 100 * cell.after
)
_MACS = _Axis("share of the MACs", lambda cell: cell.macs)
_LATENCY = _Axis("share of the latency", lambda cell: cell.latency)
_SECONDS = _Axis("seconds to compress", lambda cell: cell.seconds, logarithmic=True)
_PLOTS = (
    ("peers-macs", "Accuracy against the MACs that are left", _MACS, (_DELIVERED, _TRAINED)),
    ("peers-latency", "Accuracy against measured latency", _LATENCY, (_DELIVERED, _TRAINED)),
    ("peers-seconds", "Accuracy as delivered against the time to compress", _SECONDS, (_DELIVERED,)),
)


def write(cases: Sequence[Measured], folder: Path) -> dict[str, Path]:
    """Draw every plot into `folder`: the file by what it shows."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, title, x, rows in _PLOTS:
        drawn[title] = folder / f"{name}.svg"
        drawn[title].write_text(draw(title, cases, x, rows))
    return drawn


def draw(title: str, cases: Sequence[Measured], x: _Axis, rows: Sequence[_Axis]) -> str:
    """One column for each case, one row for each of `rows`, and a legend."""
    names = list(dict.fromkeys(cell.who for case in cases for cell in case.cells if cell.keep is not None))
    colours = dict(zip(names, _COLOURS, strict=False))
    width, panels = _WIDTH * max(2, len(cases)), _HEIGHT * len(rows)
    shapes = [
        f'<g transform="translate({_WIDTH * column},{_HEIGHT * row})">{_panel(case, x, y, colours)}</g>'
        for column, case in enumerate(cases)
        for row, y in enumerate(rows)
    ]
    height = panels + _LEGEND * -(-len(names) // 3)
    style = "font:11px sans-serif" + ";fill:#333"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" style="{style}"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f"{''.join(shapes)}{''.join(_legend(colours, panels, width))}</svg>\n"
    )


def _panel(case: Measured, x: _Axis, y: _Axis, colours: dict[str, str]) -> str:
    cells = [
        cell
        for cell in case.cells
        if cell.keep is not None and x.of(cell) is not None and y.of(cell) is not None
    ]
    if not cells:
        return ""
    points = [(cell, float(x.of(cell) or 0.0), float(y.of(cell) or 0.0)) for cell in cells]
    x_low, x_high = _range([at for _, at, _ in points])
    y_low, y_high = _range([at for *_, at in points])

    def across(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - y_low) / (y_high - y_low) * (_HEIGHT - _BOTTOM - _TOP)

    marks = [_mark(cell, across(a), up(b), colours.get(cell.who, "#000")) for cell, a, b in points]
    foot, middle = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
    return "".join(
        [
            f'<text x="{middle}" y="16" text-anchor="middle" font-weight="bold">{escape(case.name)}</text>',
            *(_rule(across(value), foot, text) for value, text in _ticks(x, x_low, x_high)),
            *(_rung(up(value), text) for value, text in _ticks(y, y_low, y_high)),
            f'<path d="M{_LEFT} {_TOP}V{foot}H{_WIDTH - _RIGHT}" fill="none" stroke="#333"/>',
            f'<text x="{middle}" y="{foot + 32}" text-anchor="middle">{escape(x.label)}</text>',
            f'<text transform="translate(12,{(_TOP + foot) / 2})rotate(-90)" text-anchor="middle">'
            f"{escape(y.label)}</text>",
            *marks,
        ]
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 0.5
    return low - pad, high + pad


def _ticks(axis: _Axis, low: float, high: float) -> Iterable[tuple[float, str]]:
    if not axis.logarithmic:
        return labelled(ticks(low, high))
    return [(float(power), f"{10.0**power:g}") for power in range(math.ceil(low), math.floor(high) + 1)]


def _rule(x: float, foot: float, text: str) -> str:
    return (
        f'<path d="M{x:.1f} {_TOP}V{foot}" stroke="#eee"/>'
        f'<text x="{x:.1f}" y="{foot + 15}" text-anchor="middle">{text}</text>'
    )


def _rung(y: float, text: str) -> str:
    return (
        f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#eee"/>'
        f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _mark(cell: Cell, x: float, y: float, colour: str) -> str:
    """A disc for half of the cost and more, a ring below."""
    fill = colour if (cell.keep or 0.0) >= 0.5 else "#fff"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" stroke-width="2">'
        f"<title>{escape(cell.who)}, keep {cell.keep:g}</title></circle>"
    )


def _legend(colours: dict[str, str], top: float, width: float) -> Iterable[str]:
    for place, (name, colour) in enumerate(colours.items()):
        x, y = 16 + place % 3 * (width - 32) / 3, top + _LEGEND * (place // 3) + 10
        yield f'<circle cx="{x:.0f}" cy="{y:.0f}" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 9:.0f}" y="{y + 4:.0f}">{escape(name)}</text>'
