"""Tables in the pages of docs/ that the code makes."""

from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"


def renewed(page: str, mark: str, table: str) -> str:
    """The page with `table` between its comments `begin {mark}` and `end {mark}`."""
    begin, end = f"<!-- begin {mark} -->\n", f"<!-- end {mark} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + table + end + after
