"""What no limit of the kernel bounds for a whole job: the size of its folder, and its threads where it is root's."""

import os
import time
from contextlib import suppress
from pathlib import Path

from app.contract.problem import Problem
from workers import problems

MOST_FILES = 100_000
MOST_THREADS = 4096
_PERIOD_SECONDS = 1.0
_BLOCK = 512  # bytes: the unit of st_blocks on every system


class Watch:
    """Looks at a job's folder and its process `pid`, once a second. `most_bytes` of 0 is no limit."""

    def __init__(self, folder: Path, pid: int, most_bytes: int) -> None:
        self._folder = folder
        self._pid = pid
        self._most_bytes = most_bytes
        self._looked_at = time.monotonic()

    def excess(self) -> Problem | None:
        """Why the job has to end, if it has to; most calls cost nothing."""
        if time.monotonic() - self._looked_at < _PERIOD_SECONDS:
            return None
        try:
            return self._excess()
        finally:
            self._looked_at = time.monotonic()

    def _excess(self) -> Problem | None:
        if _threads(self._pid) > MOST_THREADS:
            return problems.THREAD_LIMIT
        if self._most_bytes and not _fits(self._folder, self._most_bytes):
            return problems.DISK_LIMIT
        return None


def _threads(pid: int) -> int:
    """0 for a process that has ended, and where there is no /proc."""
    with suppress(OSError, ValueError):
        line = Path(f"/proc/{pid}/stat").read_text()
        return int(line.rpartition(")")[2].split()[17])
    return 0


def _fits(folder: Path, most_bytes: int) -> bool:
    """Whether what the folder takes on the disk is at most that; of very many files not all are counted."""
    files, size = 0, 0
    for path, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(OSError):  # it is gone
                size += os.lstat(os.path.join(path, name)).st_blocks * _BLOCK  # noqa: PTH118 -- there may be many
            files += 1
            if size > most_bytes or files > MOST_FILES:
                return False
    return True
