"""What the command line prints: problems, the before / after table, the table of layers."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.comparison import NONE, Cell, compare, count
from app.contract.problem import Problem
from app.contract.report import Candidate, LayerReport, Report

VERDICTS = {"better": "green", "trade_off": "yellow", "not_worth_it": "red"}


def print_problem(console: Console, problem: Problem) -> None:
    """What went wrong, where, and the way out."""
    console.print(f"[bold red]{escape(problem.title)}[/] [dim]({escape(problem.code)})[/]")
    console.print(f"  {escape(problem.detail)}")
    for label, value in (("field", problem.field), ("layer", problem.layer), ("hint", problem.hint)):
        if value:
            console.print(f"  [dim]{label}[/] {escape(value)}")


def print_report(console: Console, report: Report, *, layers: bool) -> None:
    """The before / after table, each candidate's verdict, and its layers where asked for."""
    console.print(_comparison(report))
    for candidate in report.candidates:
        style = VERDICTS[candidate.verdict]
        verdict = candidate.verdict.replace("_", " ")
        console.print(f"[{style}]keep {candidate.keep:g}: {verdict}[/] · {escape(candidate.reason)}")
        if layers:
            console.print(_layers(candidate))


def _comparison(report: Report) -> Table:
    table = Table(header_style="bold", title_justify="left")
    table.add_column("")
    table.add_column("original", justify="right")
    for candidate in report.candidates:
        table.add_column(f"keep {candidate.keep:g}", justify="right")
        table.add_column("change", justify="right")
    for row in compare(report):
        cells = [text for cell in row.candidates for text in (cell.text, _change(cell))]
        table.add_row(row.label, row.original, *cells)
    return table


def _change(cell: Cell) -> str:
    if cell.better is None:
        return cell.change
    return f"[{'green' if cell.better else 'red'}]{cell.change}[/]"


def _layers(candidate: Candidate) -> Table:
    table = Table(header_style="bold")
    for column in ("layer", "method", "rank"):
        table.add_column(column)
    for column in ("parameters", "MACs", "weight error", "output error", "latency"):
        table.add_column(column, justify="right")
    for layer in candidate.layers:
        table.add_row(*_layer(layer))
    return table


def _layer(layer: LayerReport) -> list[str]:
    kept = escape(f"{layer.method} ({layer.reason})" if layer.reason else layer.method)
    output_error = NONE if layer.output_error is None else f"{layer.output_error:.4f}"
    latency = f"{layer.latency_ms[0]:.3f} → {layer.latency_ms[1]:.3f} ms" if layer.latency_ms else NONE
    return [
        escape(layer.name),
        kept,
        ", ".join(map(str, layer.rank)) if layer.rank else NONE,
        _pair(layer.parameters),
        _pair(layer.macs),
        f"{layer.weight_error:.4f}",
        output_error,
        latency,
    ]


def _pair(pair: tuple[int, int]) -> str:
    before, after = map(count, pair)
    return before if before == after else f"{before} → {after}"
