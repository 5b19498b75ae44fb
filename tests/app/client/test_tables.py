import pytest
from rich.console import Console

from app.client.tables import print_report
from app.contract.report import Report
from tests.app.client.service import REPORT
from tests.app.dashboard.reports import with_resources


def printed(document: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    print_report(Console(width=120), Report.model_validate(document), layers=False)
    return capsys.readouterr().out


def test_resources_and_int8_forms_are_printed_where_they_were_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = printed(with_resources(REPORT), capsys)
    for words in ("resources", "Weights moved", "1.20 MB", "25.0 mJ", "as int8", "350 kB"):
        assert words in output
    assert "resources" not in printed(REPORT, capsys)
