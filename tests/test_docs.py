"""What the pages for newcomers name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS, METHODS = "docs/results.md", "docs/methods.md"
PAGES = [
    RESULTS,
    METHODS,
    "README.md",
    "CHANGELOG.md",
    "examples/fashion/README.md",
    "docs/glossary.md",
    "docs/sandbox.md",
    "docs/onnx.md",
    "docs/formats.md",
]


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / page).read_text())
        missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
        assert missing == [], page


def test_every_make_target_named_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)\b", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "serve"} <= named
    assert named <= targets


def test_every_table_of_results_names_the_command_that_makes_it() -> None:
    sections = (ROOT / RESULTS).read_text().split("\n## ")
    for section in sections:
        places = re.findall(r"<!-- begin ([\w-]+) -->\n(.*?)<!-- end \1 -->", section, flags=re.DOTALL)
        outside = re.sub(r"<!-- begin.*?<!-- end [^\n]*", "", section, flags=re.DOTALL)
        assert "| ---" not in outside, "a table that no command rewrites"
        assert len(places) == section.count("<!-- begin ") == section.count("<!-- end ")
        assert not places or _commands(section), section.partition("\n")[0]
    commands = [command for section in sections for command in _commands(section)]
    assert len(commands) > 1
    assert [command for command in commands if not _exists(command)] == []


def _commands(section: str) -> list[str]:
    return re.findall(r"^(python -m [\w.]+|make [\w-]+)", section, flags=re.MULTILINE)


def _exists(command: str) -> bool:
    if command.startswith("make "):
        target = command.removeprefix("make ")
        return re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE) is not None
    module = ROOT / command.removeprefix("python -m ").replace(".", "/")
    return module.with_suffix(".py").exists() or (module / "__main__.py").exists()


def test_the_map_of_the_house_is_true() -> None:
    house = (ROOT / "README.md").read_text().split("## The house")[1].split("```")[1]
    folder, seen = "", []
    for line in house.strip().splitlines():
        names = re.findall(r"\S+/(?=\s)", line.split("     ")[0] + " ")
        if not line.startswith(" "):
            folder, names = names[0], [""]
        seen += [ROOT / folder / name for name in names]
    assert len(seen) > 15
    assert [str(path) for path in seen if not path.is_dir()] == []


def test_decisions_are_numbered_without_gaps_and_say_why_what_and_what_follows() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for number, path in enumerate(decisions, start=1):
        content = path.read_text()
        assert content.startswith(f"# {number}. ")
        for part in ("**Why.**", "**What.**", "**What follows.**"):
            assert part in content, path.name


@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_the_line_length(page: str) -> None:
    lines = [line for line in (ROOT / page).read_text().splitlines() if not line.startswith(("|", "!["))]
    assert max(map(len, lines)) <= 120
