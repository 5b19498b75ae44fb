"""What no limit of the kernel bounds: the size of a whole folder, and the threads of root."""

import os
import stat
import time
from collections.abc import Iterator, Sequence
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
        processes = members(self._pid)
        if sum(map(_threads, processes)) > MOST_THREADS:
            return problems.THREAD_LIMIT
        if self._most_bytes and _takes(self._folder, processes, self._most_bytes) > self._most_bytes:
            return problems.DISK_LIMIT
        return None


def members(session: int) -> list[int]:
    """The processes of a session, by the number of the process that leads it; none without a /proc."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:  # noqa: PTH112, PTH208 -- once a second
        with suppress(OSError, ValueError):  # it has ended, or is no process
            if os.getsid(int(name)) == session:
                found.append(int(name))
    return found


def _threads(pid: int) -> int:
    with suppress(OSError):  # it has ended
        line = Path(f"/proc/{pid}/stat").read_text()
        return int(line.rpartition(")")[2].split()[17])
    return 0


def _takes(folder: Path, processes: Sequence[int], enough: int) -> int:
    """Bytes on the disk: of the folder, and of files that a process has open though they are deleted. Counts
    only until it is more than `enough`, or until there are too many files, which is more than that, too."""
    size = 0
    for number, status in enumerate(_files(folder, processes)):
        size += status.st_blocks * _BLOCK
        if size > enough or number > MOST_FILES:
            return enough + 1
    return size


def _files(folder: Path, processes: Sequence[int]) -> Iterator[os.stat_result]:
    for path, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with suppress(OSError):  # it is gone
                yield os.lstat(os.path.join(path, name))  # noqa: PTH118 -- there may be very many
    for pid in processes:
        with suppress(OSError):  # of a process that has ended, or hides
            for opened in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    status = opened.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        yield status
