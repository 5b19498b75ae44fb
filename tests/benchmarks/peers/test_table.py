"""The page gets one table a case, and pictures that a reader of SVG opens."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import cells, plots, table
from benchmarks.peers.cells import Cell
from benchmarks.peers.environments import last_line
from benchmarks.peers.table import Measured

CELLS = [
    Cell("original", before=0.9, after=0.9, macs=1.0, parameters=1.0, latency=1.0),
    Cell("peer, SVD", 0.25, 0.5, 0.875, 0.2481, 0.3, 0.61, 12.34, 10, "asked for 0.25 | kept 0.2"),
    Cell("Rankfold", 0.5, 0.89, 0.9, 0.499, 0.45, 0.7, 3.0),
    Cell("peer, SVD", 0.5, remark="RuntimeError: rank 0"),
]
CASE = Measured("clothes", 37_200_000, 580_000, 900, CELLS)


def rows(content: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in content.splitlines() if "|" in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_a_row_has_every_number_or_a_dash() -> None:
    found = rows(table.section([CASE], {}))
    head, measured, failed = found[0], found[-1], next(row for row in found if "RuntimeError" in row[-1])
    assert len({len(row) for row in found}) == 1
    numbers = ["0.25", "peer, SVD", "0.248", "0.300", "50.00", "87.50", "0.61", "12.3 (10 calls)"]
    assert measured == [*numbers, "asked for 0.25 / kept 0.2"]
    assert failed == ["0.5", "peer, SVD", *["–"] * 6, "RuntimeError: rank 0"]
    assert head[0] == "keep"


def test_the_original_comes_first_and_then_the_larger_budgets() -> None:
    keeps = [row[0] for row in rows(table.section([CASE], {}))[2:]]
    assert keeps == ["", "0.5", "0.5", "0.25"]


def test_the_cost_and_the_noise_are_told() -> None:
    content = table.section([CASE], {"a plot": "img/plot.svg"})
    assert "one standard deviation is 1.0 points" in content  # √(0.9 · 0.1 / 900)
    assert "37.2 M multiply-accumulates, 0.58 M parameters" in content
    assert "![a plot](img/plot.svg)" in content


def test_who_is_ahead_of_us_says_by_how_much() -> None:
    rival = Cell("peer, Tucker", 0.5, before=0.88, after=0.905)
    found = rows(table.section([replace(CASE, cells=[*CELLS, rival])], {}))
    [row] = [row for row in found if row[1] == "peer, Tucker"]
    assert row[-1] == "trained 0.5 deviations ahead of Rankfold"  # 0.5 points of 1.0
    assert all("ahead" not in row[-1] for row in found if row[1] == "Rankfold")


def test_plots_are_svg_with_a_mark_for_every_measured_cell(tmp_path: Path) -> None:
    for title, file in plots.write([CASE], tmp_path).items():
        root = ET.fromstring(file.read_text())  # noqa: S314  # of our own making
        space = "{http://www.w3.org/2000/svg}"
        told = [mark.findtext(f"{space}title") for mark in root.iter(f"{space}circle")]
        marks = [name for name in told if name]
        assert set(marks) == {"Rankfold, keep 0.5", "peer, SVD, keep 0.25"}, title
        assert root.findtext(f"{space}title") == title


def test_cells_survive_their_file(tmp_path: Path) -> None:
    cells.save(tmp_path / "cells.json", CELLS)
    assert cells.load(tmp_path / "cells.json") == CELLS


def test_a_failure_is_told_in_its_last_line() -> None:
    assert last_line("Traceback\n  File x\nValueError: no rank\n\n") == "ValueError: no rank"
    assert last_line("") == ""
    assert len(last_line("x" * 500)) <= 120
