"""What the command line prints: problems, the before / after table, the table of layers."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.comparison import NONE, Cell, Row, compare, count, int8, resources
from app.contract.problem import Notice, Problem
from app.contract.report import Candidate, LayerReport, Report
from app.plans.schemas import PlannedLayer, PlanView

VERDICTS = {"better": "green", "trade_off": "yellow", "not_worth_it": "red"}


def print_problem(console: Console, problem: Problem) -> None:
    """What went wrong, where, and the way out."""
    console.print(f"[bold red]{escape(problem.title)}[/] [dim]({escape(problem.code)})[/]")
    console.print(f"  {escape(problem.detail)}")
    for label, value in (("field", problem.field), ("layer", problem.layer), ("hint", problem.hint)):
        if value:
            console.print(f"  [dim]{label}[/] {escape(value)}")


def print_warnings(console: Console, warnings: list[Notice]) -> None:
    """What the user should know; of layers only how many, since the table of layers says the rest."""
    for notice in warnings:
        if notice.layer is None:
            console.print(f"[yellow]{escape(notice.code)}[/] {escape(notice.detail)}")
    if number := sum(notice.layer is not None for notice in warnings):
        console.print(f"[yellow]{number} layer(s) stay as they are[/]; --layers says why")


def print_report(console: Console, report: Report, *, layers: bool) -> None:
    """The before / after tables, each candidate's verdict, and its layers where asked for."""
    for title, rows in {"": compare(report), "resources": resources(report), "as int8": int8(report)}.items():
        if rows:
            console.print(_comparison(title, rows, report.candidates))
    for candidate in report.candidates:
        style = VERDICTS[candidate.verdict]
        verdict = candidate.verdict.replace("_", " ")
        console.print(f"[{style}]keep {candidate.keep:g}: {verdict}[/] · {escape(candidate.reason)}")
        if layers:
            console.print(_layers(candidate.layers, _measured(candidate.layers)))
            _print_reasons(console, candidate.layers)


def print_plan(console: Console, plan: PlanView) -> None:
    """What each candidate would cost, its layers, and the reasons of those that stay dense."""
    for candidate in (plan, *plan.others):
        parameters, macs = count(candidate.parameters), count(candidate.macs)
        console.print(f"[bold]keep {candidate.keep:g}[/]: {parameters} parameters, {macs} MACs")
        lost = {"discarded energy": [_error(layer.discarded_energy) for layer in candidate.layers]}
        console.print(_layers(candidate.layers, lost))
        _print_reasons(console, candidate.layers)


def _comparison(title: str, rows: list[Row], candidates: list[Candidate]) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    table.add_column(title)
    table.add_column("original", justify="right", no_wrap=True)
    for candidate in candidates:
        table.add_column(f"keep {candidate.keep:g}", justify="right", no_wrap=True)
        table.add_column("change", justify="right", no_wrap=True)
    for row in rows:
        cells = [text for cell in row.candidates for text in (cell.text, _change(cell))]
        table.add_row(row.label, row.original, *cells)
    return table


def _change(cell: Cell) -> str:
    if cell.better is None:
        return cell.change
    return f"[{'green' if cell.better else 'red'}]{cell.change}[/]"


AnyLayer = LayerReport | PlannedLayer
Columns = dict[str, list[str]]


def _layers(layers: Sequence[AnyLayer], more: Columns) -> Table:
    """One row a layer; what nobody measured has no column."""
    columns: Columns = {
        "layer": [escape(layer.name) for layer in layers],
        "method": ["dense" if layer.method == "keep" else layer.method for layer in layers],
        "rank": [", ".join(map(str, layer.rank or [])) or NONE for layer in layers],
        "parameters": [_pair(layer.parameters) for layer in layers],
        "MACs": [_pair(layer.macs) for layer in layers],
        **more,
    }
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    known = {name: cells for name, cells in columns.items() if set(cells) != {NONE}}
    for name in known:
        numeric = name not in {"layer", "method"}
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in zip(*known.values(), strict=True):
        table.add_row(*row)
    return table


def _measured(layers: Sequence[LayerReport]) -> Columns:
    return {
        "weight error": [_error(layer.weight_error) for layer in layers],
        "output error": [_error(layer.output_error) for layer in layers],
        "latency, ms": [_latency(layer) for layer in layers],
    }


def _print_reasons(console: Console, layers: Sequence[AnyLayer]) -> None:
    reasons: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason:
            reasons.setdefault(layer.reason, []).append(layer.name)
    for reason, names in reasons.items():
        console.print(f"[dim]{escape(', '.join(names))}: {escape(reason)}[/]")


def _latency(layer: LayerReport) -> str:
    return f"{layer.latency_ms[0]:.3f} → {layer.latency_ms[1]:.3f}" if layer.latency_ms else NONE


def _error(error: float | None) -> str:
    return NONE if error is None else f"{error:.3f}"


def _pair(pair: tuple[int, int]) -> str:
    before, after = map(count, pair)
    return before if before == after else f"{before} → {after}"
