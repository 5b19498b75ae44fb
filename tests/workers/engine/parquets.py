"""Tools to forge Parquet files: descriptions are changed, or made up, and written anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workers.engine.admit.thrift import Budget, Fields, Reader

FLOAT, OPTIONAL = 4, 1


def table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A file of these columns."""
    pq.write_table(pa.table(columns), path, **options)
    return path


def footer(path: Path) -> Fields:
    """A file's description."""
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    return Reader(data[-8 - length : -8], Budget(1 << 20)).struct()


def forged(path: Path, change: Callable[[Fields], object]) -> Path:
    """The file with its description changed."""
    data, fields = path.read_bytes(), footer(path)
    change(fields)
    return crafted(path, data[4 : -8 - int.from_bytes(data[-8:-4], "little")], fields)


def crafted(path: Path, data: bytes, description: Fields | bytes) -> Path:
    """A file of anything, described as anything."""
    about = description if isinstance(description, bytes) else struct(description)
    path.write_bytes(b"PAR1" + data + about + len(about).to_bytes(4, "little") + b"PAR1")
    return path


def one_column(pages: bytes, values: int, rows: int) -> Fields:
    """The description of a file whose only column, of single-precision numbers, is `pages`."""
    about = {1: FLOAT, 2: [0], 3: [b"x"], 4: 0, 5: values, 6: len(pages), 7: len(pages), 9: 4}
    group = {1: [{2: 4, 3: about}], 2: len(pages), 3: rows}
    schema = [{4: b"schema", 5: 1}, {1: FLOAT, 3: 0, 4: b"x"}]
    return {1: 2, 2: schema, 3: rows, 4: [group]}


def page(values: int, unpacked: int, data: bytes = b"") -> bytes:
    """A data page that says so of itself."""
    return struct({1: 0, 2: unpacked, 3: len(data), 5: {1: values, 2: 0, 3: 3, 4: 3}}) + data


def struct(fields: Fields) -> bytes:
    """A structure in Thrift's compact protocol, every integer as the same kind."""
    written, last = b"", 0
    for number, value in sorted(fields.items()):
        kind = _kind(value)
        delta = number - last
        written += bytes([delta << 4 | kind]) if delta < 16 else bytes([kind]) + varint(number << 1)
        written += b"" if isinstance(value, bool) else encoded(value)
        last = number
    return written + b"\0"


def encoded(value: Any) -> bytes:
    """A value, without what says of which kind it is."""
    if isinstance(value, dict):
        return struct(value)
    if isinstance(value, list):
        kind = _kind(value[0]) if value else 5
        head = (
            bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([0xF0 | kind]) + varint(len(value))
        )
        return head + b"".join(map(encoded, value))
    if isinstance(value, bytes):
        return varint(len(value)) + value
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def varint(value: int) -> bytes:
    """Seven bits at a time."""
    written = b""
    while value >= 0x80:
        written, value = written + bytes([value & 0x7F | 0x80]), value >> 7
    return written + bytes([value])


def _kind(value: Any) -> int:
    if isinstance(value, bool):
        return 1 if value else 2
    return {dict: 12, list: 9, bytes: 8, int: 6}[type(value)]
