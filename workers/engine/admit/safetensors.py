"""Admission of safetensors files."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workers.engine.admit.archive import show
from workers.engine.admit.document import expect, field, load, malformed, path_of
from workers.engine.admit.stored import StoredArray, elements
from workers.engine.errors import Rejected

MAX_HEADER_BYTES = 16 << 20
MAX_ARRAYS = 10_000

_CHUNK = 1 << 20
_DTYPES = {
    "BOOL": ("bool", 1),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "U8": ("uint8", 1),
    "U16": ("uint16", 2),
    "U32": ("uint32", 4),
    "U64": ("uint64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
}


@dataclass(frozen=True)
class Span:
    """An array's description, and where in the file its bytes begin and end."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@contextmanager
def admit(path: Path) -> Iterator[list[StoredArray]]:
    """The arrays of a safetensors file, in the order of their bytes, readable while the context lasts.

    Raises `Rejected`, also where the bytes overlap or leave gaps.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        yield [_stored(file, span) for span in spans(functools.partial(_head, file), size)]


def spans(
    head: Callable[[int], bytes], size: int, name: Callable[[object, str], str] = path_of
) -> list[Span]:
    """The arrays of a safetensors file of `size` bytes, in the order of their bytes.

    `head` gives the file's first bytes, as many as it is asked for; `name` admits an array's name. Raises
    `Rejected` like `admit`.
    """
    table, start = _header(head, size)
    found = sorted(
        (_span(name(key, "the name of an array"), description, start) for key, description in table.items()),
        key=lambda span: (span.begin, span.end),
    )
    _check_cover(found, start, size)
    return found


def _head(file: BinaryIO, length: int) -> bytes:
    file.seek(0)
    return file.read(length)


def _header(head: Callable[[int], bytes], size: int) -> tuple[dict[str, Any], int]:
    """The table of arrays, and where the bytes that it describes begin."""
    length = int.from_bytes(head(8), "little")
    if size < 8 or not 2 <= length <= size - 8:
        raise Rejected(
            "truncated_file",
            "The file is not a safetensors file, or it was cut short.",
            hint="Write it with safetensors and upload it again.",
        )
    if length > MAX_HEADER_BYTES:
        raise Rejected("too_large", f"The header is larger than {MAX_HEADER_BYTES} bytes.")
    table = load(head(8 + length)[8:], "the header")
    table.pop("__metadata__", None)
    if len(table) > MAX_ARRAYS:
        raise Rejected("too_many_entries", f"The file has more than {MAX_ARRAYS} arrays.")
    return table, 8 + length


def _span(name: str, description: object, start: int) -> Span:
    dtype = field(description, "dtype", str)
    if dtype not in _DTYPES:
        raise Rejected(
            "unsupported_dtype",
            f"The array {show(name)} has the dtype {show(dtype)}, which is not supported.",
        )
    shape = tuple(expect(length, int, "a length") for length in field(description, "shape", list))
    begin, end = _offsets(field(description, "data_offsets", list))
    if end - begin != elements(shape) * _DTYPES[dtype][1]:
        raise Rejected(
            "payload_size", f"The array {show(name)} does not hold the bytes that its shape takes."
        )
    return Span(name, _DTYPES[dtype][0], shape, start + begin, start + end)


def _stored(file: BinaryIO, span: Span) -> StoredArray:
    chunks = functools.partial(_chunks, file, span.begin, span.end)
    return StoredArray(span.name, span.dtype, span.shape, span.begin, chunks)


def _offsets(offsets: list[Any]) -> tuple[int, int]:
    if len(offsets) != 2:
        raise malformed("data_offsets should be a pair")
    begin, end = (expect(offset, int, "an offset") for offset in offsets)
    return begin, end


def _check_cover(arrays: list[Span], start: int, size: int) -> None:
    for span in arrays:
        if span.begin != start:
            raise Rejected("payload_size", f"The bytes of {show(span.name)} do not follow those before them.")
        start = span.end
    if start != size:
        raise Rejected("payload_size", "The arrays do not fill the file.", hint="Upload the file again.")


def _chunks(file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    for position in range(begin, end, _CHUNK):
        file.seek(position)
        yield file.read(min(_CHUNK, end - position))
