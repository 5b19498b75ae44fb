"""The rules a zip archive must keep before anything inside it is read."""

import copy
import io
import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from workers.engine.errors import Rejected

MAX_ENTRIES = 20_000
MAX_DIRECTORY_BYTES = 16 << 20

_PART = 1 << 20  # bytes read at once
_ALIGNMENT = 64  # bytes: at multiples of it torch keeps its tensors, in memory and in files

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR_SIZE = 20
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Rules:
    """What a kind of archive may contain.

    `deflate` allows compressed entries beside stored ones. All entries together may unpack to `max_bytes`,
    and to `max_ratio` times the file and `free_bytes` more, which leaves room for arrays of a constant.
    `folders` lets folders have entries of their own, which are left out of the names.
    """

    deflate: bool = False
    max_bytes: int = 64 << 30
    max_ratio: int = 1
    free_bytes: int = 0
    max_entries: int = MAX_ENTRIES
    folders: bool = False


@dataclass(frozen=True)
class _Entry:
    """An entry of a zip that begins at `start` of the file."""

    zip: zipfile.ZipFile
    info: zipfile.ZipInfo
    start: int

    def read(self) -> bytes:
        return self.zip.read(self.info)

    def open(self) -> IO[bytes]:
        return self.zip.open(self.info)


class Archive:
    """An archive whose directory keeps the rules; `start` is where in the file it begins."""

    def __init__(self, path: Path, file: zipfile.ZipFile, start: int = 0) -> None:
        self._path = path
        entries = (entry for entry in file.infolist() if not entry.is_dir())
        self._entries = {entry.filename: _Entry(file, entry, start) for entry in entries}

    @property
    def names(self) -> list[str]:
        """The names of all entries, in the order of the directory."""
        return list(self._entries)

    def within(self, folder: str) -> "Archive":
        """The entries below a folder, named as they are there."""
        inner, above = copy.copy(self), f"{folder}/"
        inner._entries = {
            name.removeprefix(above): entry for name, entry in self._entries.items() if name.startswith(above)
        }
        return inner

    @contextmanager
    def unfolded(self, name: str, rules: Rules) -> "Iterator[Archive]":
        """The same with the entries of an archive that is stored in an entry, named as if that were a folder.

        Raises `Rejected` where that archive does not keep `rules`, or is compressed.
        """
        start = self.stored_at(name)
        if start is None:
            raise Rejected("compressed_entry", f"The archive {show(name)} is compressed once more.")
        with self._path.open("rb") as file, _opened(_Part(file, start, self.size(name)), rules) as opened:
            outer, inner = copy.copy(self), Archive(self._path, opened, start)
            outer._entries = self._entries | {f"{name}/{key}": each for key, each in inner._entries.items()}
            yield outer

    def size(self, name: str) -> int:
        """The unpacked size of an entry in bytes; raises `Rejected` (`missing_entry`)."""
        return self._entry(name).info.file_size

    def read(self, name: str, limit: int) -> bytes:
        """An entry's bytes, checksum verified; raises `Rejected` where it holds more than `limit`."""
        if self.size(name) > limit:
            raise Rejected("too_large", f"The entry {show(name)} holds more than {limit} bytes.")
        return _readable(self._entry(name).read, name)

    def read_into(self, name: str, buffers: Iterable[memoryview], skip: int = 0) -> None:
        """Fill one buffer after the other with an entry's bytes after the first `skip`, checksum verified.

        A buffer is asked for when the one before is full. Raises `Rejected` unless the last ends the entry.
        """
        with _readable(self._entry(name).open, name) as stream:
            _readable(partial(stream.read, skip), name)
            for buffer in buffers:
                _readable(partial(_fill, stream, buffer), name)
            _readable(partial(_demand_end, stream), name)

    def mapped(self, name: str) -> memoryview | None:
        """An entry's bytes where they lie in the file, checksum verified; None unless they lie there as they
        are, at a multiple of 64 bytes, and are many enough to be worth it.

        Whoever writes to them changes a copy of the page; whoever changes the file changes them. Raises
        `Rejected` on damage.
        """
        begin, size = self.stored_at(name), self.size(name)
        if begin is None or begin % _ALIGNMENT or size < _PART:
            return None
        _readable(self._entry(name).open, name).close()  # which compares the two descriptions of an entry
        before = begin % mmap.ALLOCATIONGRANULARITY
        with self._path.open("rb") as file:
            pages = _readable(partial(_pages, file.fileno(), begin - before, before + size), name)
        found = memoryview(pages)[before:]
        if zlib.crc32(found) != self._entry(name).info.CRC:
            raise _damaged(name)
        return found

    def chunks(self, name: str, skip: int = 0) -> Iterator[bytes]:
        """An entry's bytes after the first `skip`, in parts of a mebibyte; raises `Rejected` on damage."""
        parts = self._chunks(name, skip)
        while (part := _readable(lambda: next(parts, b""), name)) != b"":
            yield part

    def stored_at(self, name: str) -> int | None:
        """Where an uncompressed entry's bytes begin in the file, or None for a compressed one."""
        entry = self._entry(name)
        if entry.info.compress_type != zipfile.ZIP_STORED:
            return None
        header = entry.start + entry.info.header_offset
        with self._path.open("rb") as file:
            file.seek(header)
            *_, name_length, extra_length = _readable(lambda: _LOCAL.unpack(file.read(_LOCAL.size)), name)
        return header + _LOCAL.size + int(name_length) + int(extra_length)

    def head(self, name: str, size: int) -> bytes:
        """The first `size` bytes of an entry, fewer where it is shorter; raises `Rejected` on damage."""

        def first() -> bytes:
            with self._entry(name).open() as stream:
                return stream.read(size)

        return _readable(first, name)

    def _chunks(self, name: str, skip: int = 0) -> Iterator[bytes]:
        with self._entry(name).open() as stream:
            stream.read(skip)
            while part := stream.read(_PART):
                yield part

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise Rejected("missing_entry", f"The archive has no entry {show(name)}.")
        return self._entries[name]


@contextmanager
def open_archive(path: Path, rules: Rules) -> Iterator[Archive]:
    """The archive at `path`, once its directory keeps `rules`; nothing is unpacked to disk.

    Raises `Rejected` with a code of its own for every rule, naming the entry.
    """
    with path.open("rb") as file, _opened(file, rules) as opened:
        yield Archive(path, opened)


@contextmanager
def _opened(file: BinaryIO, rules: Rules) -> Iterator[zipfile.ZipFile]:
    length = _check_ends(file)
    with _readable(lambda: zipfile.ZipFile(file), "directory") as opened:
        _check_directory(opened.infolist(), rules, length)
        yield opened


class _Part(io.RawIOBase, BinaryIO):
    """A part of a file, read as if it were the whole."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        part = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def show(text: str) -> str:
    """A foreign string made fit for a message: quoted, ASCII, short."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def _check_ends(file: BinaryIO) -> int:
    """Is it a zip, whole, with a directory small enough to be read? Its length.

    Comments are not allowed, so that the end record lies where every reader looks first.
    """
    if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise Rejected("not_a_zip", "The file is not a zip archive.", hint="Upload the file as it was saved.")
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _END.size - _END64_LOCATOR_SIZE - _END64.size))
    tail = file.read()
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06") or tail[-2:] != b"\0\0":
        raise Rejected(
            "truncated_archive",
            "The archive does not end with its directory: the file was cut short or appended to.",
            hint="Upload the file again.",
        )
    if _directory_bytes(tail) > min(length, MAX_DIRECTORY_BYTES):
        raise Rejected("too_many_entries", "The archive's directory does not fit.")
    return length


def _directory_bytes(tail: bytes) -> int:
    locator = tail[-_END.size - _END64_LOCATOR_SIZE : -_END.size]
    record = tail[: -_END.size - _END64_LOCATOR_SIZE]
    if locator.startswith(b"PK\x06\x07") and len(record) == _END64.size:
        return int(_END64.unpack(record)[8])
    return int(_END.unpack(tail[-_END.size :])[5])


def _check_directory(entries: list[zipfile.ZipInfo], rules: Rules, length: int) -> None:
    if len(entries) > rules.max_entries:
        raise Rejected("too_many_entries", f"The archive has more than {rules.max_entries} entries.")
    seen: set[str] = set()
    for entry in entries:
        if entry.filename in seen:
            raise Rejected("duplicate_entry", f"The archive has two entries {show(entry.filename)}.")
        seen.add(entry.filename)
        _check_entry(entry, rules)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > min(rules.max_bytes, length * rules.max_ratio + rules.free_bytes):
        raise Rejected("zip_bomb", f"The archive would unpack to {unpacked} bytes.")


def _check_entry(entry: zipfile.ZipInfo, rules: Rules) -> None:
    name = entry.filename
    if entry.header_offset < 0:
        raise Rejected("corrupt_archive", f"The archive is damaged at {show(name)}.")
    # ZipInfo cuts names at a null byte; the uncut one is what other readers would see.
    if not _is_plain_name(name) or entry.orig_filename != name:
        raise Rejected("unsafe_entry", f"The entry {show(entry.orig_filename)} points outside the archive.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir() and rules.folders and kind in (0, stat.S_IFDIR) and not entry.file_size:
        return
    if kind not in (0, stat.S_IFREG) or entry.is_dir():
        raise Rejected("linked_entry", f"The entry {show(name)} is a link, a folder or a device, not a file.")
    if entry.flag_bits & _ENCRYPTED:
        raise Rejected("encrypted_entry", f"The entry {show(name)} is encrypted.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED if rules.deflate else None):
        raise Rejected(
            "compressed_entry", f"The entry {show(name)} is compressed in a way that is not accepted."
        )
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
        raise Rejected("corrupt_archive", f"The archive is damaged at {show(name)}.")


def _pages(file: int, begin: int, size: int) -> mmap.mmap:
    """A part of a file; raises `ValueError` where it is shorter."""
    return mmap.mmap(file, size, access=mmap.ACCESS_COPY, offset=begin)


def _fill(stream: IO[bytes], buffer: memoryview) -> None:
    filled = 0
    while filled < len(buffer):
        part = stream.read(min(_PART, len(buffer) - filled))
        if not part:
            raise EOFError
        buffer[filled : filled + len(part)] = part
        filled += len(part)


def _demand_end(stream: IO[bytes]) -> None:
    if stream.read(1):
        raise EOFError


def _is_plain_name(name: str) -> bool:
    parts = name.removesuffix("/").split("/")
    return name.isprintable() and "\\" not in name and ":" not in name and not {"", ".", ".."} & set(parts)


def _readable(read: Callable[[], _T], what: str) -> _T:
    """Whatever the zip reader raises on damage, as one rejection."""
    try:
        return read()
    except _UNREADABLE as error:
        raise _damaged(what) from error


def _damaged(what: str) -> Rejected:
    return Rejected(
        "corrupt_archive", f"The archive is damaged at {show(what)}.", hint="Upload the file again."
    )
