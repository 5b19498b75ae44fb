"""The comparison in words: one table a case."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.peers.catalogue import OURS
from benchmarks.peers.cells import Cell

_HEAD = "| keep | who | MACs | parameters | accuracy | trained | latency | seconds | remark |"


@dataclass(frozen=True)
class Measured:
    """A case that was run: what its network costs, how many rows its accuracies are of, and its cells."""

    name: str
    macs: int
    parameters: int
    rows: int
    cells: Sequence[Cell]


def section(cases: Sequence[Measured], plots: Mapping[str, str]) -> str:
    """Markdown: how to read it, a table for each case, then plots (file by what it shows)."""
    parts = [_LEGEND, *(_table(case) for case in cases)]
    return "\n\n".join([*parts, *(f"![{shown}]({file})" for shown, file in plots.items())])


def _table(case: Measured) -> str:
    whole = next(cell.before for cell in case.cells if cell.keep is None and cell.before)
    sigma = 100 * math.sqrt(whole * (1 - whole) / case.rows)
    cost = f"{case.macs / 1e6:.1f} M multiply-accumulates, {case.parameters / 1e6:.2f} M parameters"
    noise = f"{case.rows:,} test rows, of which one standard deviation is {sigma:.1f} points"
    title = f"**{case.name}**\n\n{cost}; {noise}."
    ours = {cell.keep: cell for cell in case.cells if cell.who == OURS}
    cells = [replace(cell, remark=_remark(cell, ours.get(cell.keep), sigma)) for cell in case.cells]
    cells.sort(key=lambda cell: -(cell.keep or math.inf))
    return "\n".join([title, "", _HEAD, "|" + "---|" * (_HEAD.count("|") - 1), *map(_row, cells)])


def _remark(cell: Cell, ours: Cell | None, sigma: float) -> str:
    """What there is to say of a cell, and how far it is ahead of ours where it is."""
    pairs = [("", cell.before, ours.before), ("trained ", cell.after, ours.after)] if ours else []
    ahead = [
        f"{when}{(theirs - own) * 100 / sigma:.1f} deviations ahead of {OURS}"
        for when, theirs, own in pairs
        if theirs is not None and own is not None and theirs > own
    ]
    return "; ".join(filter(None, [cell.remark, *ahead]))


def _row(cell: Cell) -> str:
    time = _number(cell.seconds, 1 if cell.seconds and cell.seconds >= 1 else 2)
    values = [
        "" if cell.keep is None else f"{cell.keep:g}",
        cell.who,
        _number(cell.macs, 3),
        _number(cell.parameters, 3),
        _number(cell.before, 2, 100),
        _number(cell.after, 2, 100),
        _number(cell.latency, 2),
        f"{time} ({cell.calls} calls)" if cell.calls > 1 else time,
        cell.remark.replace("|", "/"),
    ]
    return f"| {' | '.join(values)} |"


def _number(value: float | None, decimals: int, unit: float = 1) -> str:
    return "–" if value is None else f"{unit * value:.{decimals}f}"


_LEGEND = """Everybody gets the same network as stock modules, the same budget of multiply-accumulates, the
same calibration rows, and the same fine-tuning: our loop, one seed, the same batches. Test rows only judge.

- *MACs*, *parameters*: what is left, as a share of the original's. One counter for all, torch's own.
- *accuracy*, *trained*: top-1 in percent, as delivered and after fine-tuning.
- *latency*: the median of ONNX Runtime over that of the original: one thread, batch 1, all networks of a case
  in turns.
- *seconds*: of the processor, one thread, for the compression without training. Peers that have no budget, or
  miss theirs, had their own knob searched for it by bisection: the time is of the calls they needed, not of
  the search.
- Peers that let one say so leave the last linear layer alone, and convolutions of fewer than eight channels.
  aimet-torch scores by the mean probability of the right class. By accuracies, which tie, it misses its
  budget: asked for 0.5 of the network in examples/fashion it kept 0.41."""
