"""Archives of `.pt2` as admission sees them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workers.engine.hostile import Entries, edit_json, pack, rejection
from tests.workers.engine.pt2_forgeries import MODEL
from workers.engine.admit import pt2
from workers.engine.admit.program import Program
from workers.engine.errors import Rejected


def admit(path: Path) -> Program:
    """The program of an archive."""
    with pt2.admit(path) as (program, _):
        return program


def rejected(entries: Entries, folder: Path) -> Rejected:
    """What an archive of such entries is refused with."""
    return rejection(admit, pack(folder / "forged.pt2", entries))


def change_model(entries: Entries, change: Callable[[Any], object]) -> Entries:
    """The entries with the program changed in place."""
    return edit_json(entries, MODEL, change)
