"""Tools to forge archives: every hostile file is made by the test that needs it."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from workers.engine.errors import Rejected

Entries = dict[str, bytes]


class Canary:
    """Leaves a file behind wherever a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def unpack(path: Path | IO[bytes]) -> Entries:
    """The entries of a zip by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, entries: Entries, compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip of these entries."""
    path.write_bytes(packed(entries, compression))
    return path


def packed(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The bytes of a zip of these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def edit_json(entries: Entries, suffix: str, change: Callable[[Any], object]) -> Entries:
    """The entries with the JSON document whose name ends so changed in place."""
    (name,) = (name for name in entries if name.endswith(suffix))
    document = json.loads(entries[name])
    change(document)
    return entries | {name: json.dumps(document).encode()}


def rejection(read: Callable[[Path], object], path: Path) -> Rejected:
    """The rejection that reading the file ends in; it names no path of this machine."""
    with pytest.raises(Rejected) as caught:
        read(path)
    assert str(path.parent) not in f"{caught.value.detail} {caught.value.hint}"
    assert caught.value.detail.endswith(".") or caught.value.code == "cannot_trace"
    return caught.value
