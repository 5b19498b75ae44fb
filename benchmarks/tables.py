"""Tables in Markdown, and their places in docs/results.md: between two comments that carry their names."""

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "results.md"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; every row is as long as the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def publish(name: str, content: str, page: Path = PAGE) -> None:
    """Put content in its place; raises `ValueError` where the page has none of that name."""
    place = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    text, found = place.subn(lambda match: f"{match[1]}{content}\n{match[2]}", page.read_text())
    if found != 1:
        raise ValueError(f"{page.name} has {found} places for the table {name!r}")
    page.write_text(text)
