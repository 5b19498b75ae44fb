"""Attacks by the archive itself, for every kind of file that is one."""

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection
from typing import TypeAlias

from tests.acceptance.hostile.trap import Trap
from tests.acceptance.hostile.vector import Corpus
from tests.workers.engine.hostile import Entries, packed
from workers.engine.admit.archive import MAX_DIRECTORY_BYTES

Attack: TypeAlias = Callable[[Entries, Trap], bytes]
_CENTRAL, _END = b"PK\x01\x02", b"PK\x05\x06"
_UNIX_LINK = 0x000D  # the extra field in which PKWARE keeps what a hard link points to


def traversal(entries: Entries, trap: Trap) -> bytes:
    """An entry that lies outside of the folder it is unpacked to."""
    return packed({**entries, "../" * 16 + trap.target.lstrip("/"): b"1"})


def absolute(entries: Entries, trap: Trap) -> bytes:
    """The same by an absolute path."""
    return packed({**entries, trap.target: b"1"})


def backslashes(entries: Entries, trap: Trap) -> bytes:
    """The same as Windows writes it."""
    return packed({**entries, ("..\\" * 16) + trap.target.replace("/", "\\"): b"1"})


def null_in_name(entries: Entries, _: Trap) -> bytes:
    """A name that ends early for some readers."""
    data = packed({**entries, "name_evil": b"1"})
    return data.replace(b"name_evil", b"name\0evil")


def symbolic_link(entries: Entries, trap: Trap) -> bytes:
    """A link to a folder, and a file written through it."""
    link, written = zipfile.ZipInfo("link"), zipfile.ZipInfo("link/canary")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return _with(entries, (link, trap.target.rpartition("/")[0].encode()), (written, b"1"))


def device(entries: Entries, _: Trap) -> bytes:
    """A character device."""
    entry = zipfile.ZipInfo("null")
    entry.external_attr = (stat.S_IFCHR | 0o666) << 16
    return _with(entries, (entry, b""))


def hard_link(entries: Entries, _: Trap) -> bytes:
    """An entry of the archive's own says that it is a link to another file."""
    *others, name = entries
    entry = zipfile.ZipInfo(name)
    link = struct.pack("<LLHH", 0, 0, 0, 0) + b"/etc/passwd"
    entry.extra = struct.pack("<HH", _UNIX_LINK, len(link)) + link
    return _with({other: entries[other] for other in others}, (entry, entries[name]))


def duplicate_names(entries: Entries, _: Trap) -> bytes:
    """Two entries of one name: readers differ in which they take."""
    name, data = next(iter(entries.items()))
    return _with(entries, (zipfile.ZipInfo(name), data[::-1]))


def encrypted(entries: Entries, _: Trap) -> bytes:
    """An entry that says it needs a password."""
    return _patched(packed(entries), _CENTRAL, 8, b"\x01\x00")


def bomb(entries: Entries, _: Trap) -> bytes:
    """An entry of 400 MB of zeros, in 400 kB."""
    *others, name = entries
    kept = {other: entries[other] for other in others}
    return packed({**kept, name: bytes(400_000_000)}, zipfile.ZIP_DEFLATED)


def nested_bomb(entries: Entries, _: Trap) -> bytes:
    """The same within archives within an archive."""
    inner = packed({"0": bytes(400_000_000)}, zipfile.ZIP_DEFLATED)
    for depth in range(3):
        inner = packed({f"{depth}.zip": inner})
    *others, name = entries
    return packed({**{other: entries[other] for other in others}, name: inner, "nested.zip": inner})


def overlapping(entries: Entries, _: Trap) -> bytes:
    """A thousand entries that are one and the same megabyte."""
    *others, name = entries
    kept = {other: entries[other] for other in others}
    data = packed({**kept, name: bytes(1 << 20)})
    start = data.rindex(_CENTRAL)
    end = data.rindex(_END)
    single = data[start:end]
    copies = b"".join(
        single.replace(name.encode(), f"{place:0{len(name)}}".encode()[-len(name) :]) for place in range(1000)
    )
    directory = data[data.index(_CENTRAL) : start] + single + copies
    count = len(entries) + 1000
    tail = struct.pack("<4s4H2LH", _END, 0, 0, count, count, len(directory), data.index(_CENTRAL), 0)
    return data[: data.index(_CENTRAL)] + directory + tail


def million_entries(_: Entries, __: Trap) -> bytes:
    """A directory of as many entries as its size allows."""
    one = packed({"x": b""})
    start, end = one.index(_CENTRAL), one.index(_END)
    count = MAX_DIRECTORY_BYTES // (end - start)
    directory = one[start:end] * count
    tail = struct.pack("<4s4H2LH", _END, 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), start, 0)
    return one[:start] + directory + tail


def huge_directory(entries: Entries, _: Trap) -> bytes:
    """A directory that says it is four gigabytes long."""
    return _patched(packed(entries), _END, 12, b"\xf0\xff\xff\xff")


def cut_short(entries: Entries, _: Trap) -> bytes:
    """Only the first half."""
    data = packed(entries)
    return data[: len(data) // 2]


def something_behind(entries: Entries, trap: Trap) -> bytes:
    """A pickle behind the directory, where other readers do not look."""
    return packed(entries) + trap.pickled


def sizes_that_lie(entries: Entries, _: Trap) -> bytes:
    """An entry that says it is one byte long."""
    return _patched(packed(entries), _CENTRAL, 24, struct.pack("<L", 1))


_ATTACKS: list[tuple[Attack, tuple[str, ...]]] = [
    (traversal, ("unsafe_entry",)),
    (absolute, ("unsafe_entry",)),
    (backslashes, ("unsafe_entry",)),
    (null_in_name, ("unsafe_entry",)),
    (symbolic_link, ("linked_entry",)),
    (device, ("linked_entry",)),
    (hard_link, ()),
    (duplicate_names, ("duplicate_entry",)),
    (encrypted, ("encrypted_entry",)),
    (bomb, ("zip_bomb", "compressed_entry")),
    (nested_bomb, ("unknown_entry", "malformed")),
    (overlapping, ("zip_bomb", "corrupt_archive")),
    (million_entries, ("too_many_entries",)),
    (huge_directory, ("too_many_entries",)),
    (cut_short, ("truncated_archive",)),
    (something_behind, ("truncated_archive",)),
    (sizes_that_lie, ("corrupt_archive",)),
]
CORE = frozenset({"traversal", "symbolic_link", "bomb", "nested_bomb", "overlapping", "duplicate_names"})
"""The attacks that depend on a format's own rules; the others end in code that all share."""


def add_to(corpus: Corpus, entries: Callable[[], Entries], only: Collection[str] = ()) -> None:
    """Add the attacks, or those of these names, on an archive of `entries`; the last of them is data."""
    for attack, codes in _ATTACKS:
        if not only or attack.__name__ in only:
            corpus.add(attack.__name__, lambda trap, attack=attack: attack(entries(), trap), *codes)  # type: ignore[misc]


def _with(entries: Entries, *more: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        for entry, data in more:
            archive.writestr(entry, data)
    return buffer.getvalue()


def _patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    place = data.rindex(signature) + offset
    return data[:place] + value + data[place + len(value) :]
