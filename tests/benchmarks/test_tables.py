"""Tables in their places in a page, and jobs whose budgets cannot all be met."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.contract.report import Report
from benchmarks import cases
from benchmarks.tables import markdown, publish
from workers.engine.errors import EngineError

PAGE = (
    "# Page\n\n<!-- begin one -->\nold\n<!-- end one -->\n\nText.\n\n<!-- begin two -->\n<!-- end two -->\n"
)


def test_a_table_replaces_what_stood_in_its_place_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    table = markdown(["a", "b"], [["1", "2\\1"]])
    assert table == "| a | b |\n| --- | --- |\n| 1 | 2\\1 |"
    publish("one", table, page)
    assert page.read_text() == PAGE.replace("old", table)
    publish("one", "old", page)
    assert page.read_text() == PAGE


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(ValueError, match="three"):
        publish("three", "", page)


def _reachable_from(least: float, wanted: list[list[float]]) -> Any:
    def job(case: Path, target: Mapping[str, Any]) -> Report:
        keeps = target["target"]["keep"]
        wanted.append(list(keeps))
        if keeps[-1] < least:
            raise EngineError("budget_unreachable", "No ranks keep so little.")
        nothing: Any = dict.fromkeys(Report.model_fields)
        return Report.model_construct(**nothing)

    return job


def test_budgets_that_no_ranks_reach_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[list[float]] = []
    monkeypatch.setattr(cases, "_job", _reachable_from(0.4, wanted))
    assert cases._run(Path("case"), "macs")["unreachable"] == [0.25, 0.35]
    assert wanted[-1] == [0.7, 0.5]
    monkeypatch.setattr(cases, "_job", _reachable_from(0.9, []))
    with pytest.raises(EngineError):
        cases._run(Path("case"), "macs")
