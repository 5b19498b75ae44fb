"""Bytes on their way in: a temporary file that cannot outlive its process."""

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_SUFFIX = ".part"


class Spool:
    """A locked temporary file in `folder` that counts and digests what is written to it.

    As a context manager it removes the file at the end, unless it was moved away.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(suffix=_SUFFIX, dir=folder)
        # The kernel drops the lock when the process dies, however it dies.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.path = Path(name)
        self.bytes = 0
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._digest = hashlib.sha256()

    def write(self, data: bytes | bytearray) -> None:
        """Append `data`; blocks for the disk."""
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """The digest of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()


def sweep(folder: Path) -> int:
    """Remove what processes that died left in `folder`; how many files there were."""
    return sum(_remove_if_orphaned(path) for path in folder.glob(f"*{_SUFFIX}"))


def _remove_if_orphaned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False  # its process lives, or has just finished with it
    return True
