"""Admission of NumPy archives (`.npz`)."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.engine.admit.archive import Archive, Rules, open_archive, show
from workers.engine.admit.document import malformed, path_of
from workers.engine.admit.stored import StoredArray, elements
from workers.engine.errors import Rejected

RULES = Rules(deflate=True, max_bytes=16 << 30, max_ratio=200, free_bytes=256 << 20)
MAX_HEADER_BYTES = 10_000

# The header is a Python literal; numpy writes it in this one form, so no parser of Python is needed.
_HEADER = re.compile(
    rb"\{'descr': (?P<descr>'[^']{0,64}'|\[.*\]), 'fortran_order': (?P<order>True|False), "
    rb"'shape': \((?P<shape>|\d{1,13},|\d{1,13}(, \d{1,13})+),?\), ?\}\s*",
    re.DOTALL,
)
_DTYPES = {
    "b1": "bool",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
}


@contextmanager
def admit(path: Path) -> Iterator[list[StoredArray]]:
    """The arrays of a `.npz`, readable while the context lasts. Nothing is unpickled. Raises `Rejected`."""
    with open_archive(path, RULES) as archive:
        yield [_array(archive, entry) for entry in archive.names]


def _array(archive: Archive, entry: str) -> StoredArray:
    if not entry.endswith(".npy"):
        raise Rejected(
            "unknown_entry",
            f"The archive has an entry that is not an array: {show(entry)}.",
            hint="Write the file with numpy.savez or numpy.savez_compressed.",
        )
    name = path_of(entry.removesuffix(".npy"), "the name of an array")
    header, start = _header(archive, entry, name)
    dtype, shape = _dtype(header["descr"].decode("latin-1"), name), _shape(header["shape"])
    size = elements(shape) * int(header["descr"][-2:-1])
    if start + size != archive.size(entry):
        raise Rejected(
            "payload_size", f"The array {show(name)} does not hold the bytes that its shape takes."
        )
    position = archive.stored_at(entry)
    return StoredArray(
        name,
        dtype,
        shape,
        position=None if position is None else position + start,
        chunks=functools.partial(archive.chunks, entry, start),
        column_major=header["order"] == b"True",
    )


def _header(archive: Archive, entry: str, name: str) -> tuple[dict[str, bytes], int]:
    """The header's fields as written, and where the array's bytes begin in the entry."""
    head = archive.head(entry, MAX_HEADER_BYTES + 12)
    if not head.startswith(b"\x93NUMPY") or len(head) < 12 or head[6] not in (1, 2, 3):
        raise malformed(f"{show(name)} is not an array of numpy")
    prefix = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8 : 8 + prefix], "little")
    start = 8 + prefix + length
    fields = _HEADER.fullmatch(head[8 + prefix : start])
    if length > MAX_HEADER_BYTES or len(head) < min(start, MAX_HEADER_BYTES) or fields is None:
        raise malformed(f"the header of {show(name)} is not one that numpy writes")
    return fields.groupdict(), start


def _dtype(descr: str, name: str) -> str:
    text = descr.strip("'")
    if text.lstrip("|<>=").startswith("O") or "O" in text:
        raise Rejected(
            "pickled_objects",
            f"The array {show(name)} holds pickled Python objects, which can carry code.",
            hint="Convert it to a numeric dtype before saving.",
        )
    if text[:1] not in "<|" or text[1:] not in _DTYPES:
        raise Rejected(
            "unsupported_dtype",
            f"The array {show(name)} has the dtype {show(text)}, which is not supported.",
            hint="Use little-endian booleans, integers or real floating-point numbers.",
        )
    return _DTYPES[text[1:]]


def _shape(text: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(b",") if part)
