"""Admission of Parquet files: all that they say about themselves, before a library reads their data.

Fields and their numbers are those of the format's definition, parquet.thrift of Apache Parquet.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workers.engine.admit import npz
from workers.engine.admit.archive import show
from workers.engine.admit.document import malformed
from workers.engine.admit.parquet_columns import Column, columns
from workers.engine.admit.thrift import Budget, Fields, Reader, get
from workers.engine.errors import Rejected

MAX_FOOTER_BYTES = 16 << 20
MAX_FOOTER_VALUES = 500_000
MAX_PAGES = 50_000
MAX_PAGE_BYTES = 128 << 20
MAX_ROW_BYTES = 64 << 20
MAX_ROWS = 1 << 40

_MAGIC, _ENCRYPTED_MAGIC = b"PAR1", b"PARE"
_TAIL = 8
_HEADER_BYTES = (1 << 12, 1 << 20)  # of a page, with statistics: what is tried
_PAGE_VALUES = 40  # of a page's header
_CODECS = {0, 1, 2, 4, 6, 7}  # none, Snappy, gzip, Brotli, Zstandard, LZ4
_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = range(4)


@dataclass(frozen=True)
class Table:
    """A file's columns, each with `rows` rows. They are in the row groups `groups`: the others are empty.
    `footer` is the description that was admitted."""

    rows: int
    groups: tuple[int, ...]
    columns: tuple[Column, ...]
    footer: bytes


@dataclass(frozen=True)
class _Chunk:
    """A column's part of a row group: `values` in pages from `start` to `end`."""

    column: Column
    values: int
    start: int
    end: int


def admit(path: Path) -> Table:
    """What a Parquet file holds; of its data nothing is read but the headers of pages.

    Raises `Rejected`, naming the column where there is one.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        footer = _footer(file, size)
        fields = _struct(footer)
        found = columns(get(fields, 2, list, "the schema"))
        groups = get(fields, 4, list, "the row groups")
        rows = _rows(fields, groups)
        filled = tuple(place for place, group in enumerate(groups) if group[3])
        chunks = [chunk for place in filled for chunk in _chunks(groups[place], found, size)]
        table = Table(rows, filled, tuple(_sized(column, rows, chunks) for column in found), footer)
        _check_size(table, size)
        _check_pages(file, chunks)
        return table


def _footer(file: BinaryIO, size: int) -> bytes:
    file.seek(0)
    head = file.read(len(_MAGIC))
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    if _ENCRYPTED_MAGIC in (head, tail[4:]):
        raise _encrypted()
    length = int.from_bytes(tail[:4], "little")
    if head != _MAGIC or tail[4:] != _MAGIC or length > size - _TAIL - len(_MAGIC):
        raise Rejected(
            "truncated_file",
            "The file is not a Parquet file, or it was cut short.",
            hint="Upload the file as it was written.",
        )
    if length > MAX_FOOTER_BYTES:
        raise Rejected("too_large", f"The file's description takes more than {MAX_FOOTER_BYTES} bytes.")
    file.seek(size - _TAIL - length)
    return file.read(length)


def _struct(footer: bytes) -> Fields:
    reader = Reader(footer, Budget(MAX_FOOTER_VALUES))
    try:
        fields = reader.struct()
    except EOFError:
        raise malformed("its description is cut short") from None
    if fields.keys() & {8, 9}:
        raise _encrypted()
    return fields


def _rows(fields: Fields, groups: list[Any]) -> int:
    rows = get(fields, 3, int, "the number of rows")
    counted = [get(group, 3, int, "the number of rows of a group") for group in groups]
    if not 0 <= rows <= MAX_ROWS or min(counted, default=0) < 0 or sum(counted) != rows:
        raise malformed("the rows of the groups are not those of the file")
    return rows


def _chunks(group: Any, found: list[Column], size: int) -> Iterator[_Chunk]:
    stored = get(group, 1, list, "the columns of a group")
    rows = get(group, 3, int, "the number of rows of a group")
    if len(stored) != len(found):
        raise malformed("a row group has other columns than the file")
    for column, chunk in zip(found, stored, strict=True):
        yield _chunk(column, chunk, rows, size)


def _chunk(column: Column, chunk: Any, rows: int, size: int) -> _Chunk:
    about = get(chunk, 3, dict, "the description of a column")
    if 1 in chunk:
        raise Rejected("external_data", f"The column {show(column.name)} lies in another file.")
    if chunk.keys() & {8, 9}:
        raise _encrypted()
    if get(about, 4, int, "a codec") not in _CODECS:
        raise Rejected(
            "compressed_entry",
            f"The column {show(column.name)} is compressed in a way that is not accepted.",
            hint="Use Snappy, Zstandard, gzip, LZ4 or Brotli.",
        )
    starts = [get(about, 9, int, "where pages begin")]
    starts += [value for value in [about.get(11)] if isinstance(value, int) and value > 0]
    end = min(starts) + get(about, 7, int, "the size of a column")
    values = get(about, 5, int, "the number of values")
    if not len(_MAGIC) <= min(starts) <= end <= size - _TAIL or values < rows:
        raise malformed(f"the column {show(column.name)} does not lie in the file")
    if values % rows:
        raise lists_differ(column.name)
    return _Chunk(column, values, min(starts), end)


def _sized(column: Column, rows: int, chunks: list[_Chunk]) -> Column:
    """The column, with how many values each row has: the same everywhere, or lists differ."""
    values = sum(chunk.values for chunk in chunks if chunk.column is column)
    if values % max(1, rows) or (not column.axes and values != rows):
        raise lists_differ(column.name)
    sized = column.of(values // max(1, rows))
    if sized.row_bytes > MAX_ROW_BYTES:
        raise Rejected("too_large", f"A row of {show(column.name)} takes more than {MAX_ROW_BYTES} bytes.")
    return sized


def _check_size(table: Table, size: int) -> None:
    """The same bounds as for arrays in a zip."""
    unpacked, rules = table.rows * sum(column.row_bytes for column in table.columns), npz.RULES
    if unpacked > min(rules.max_bytes, size * rules.max_ratio + rules.free_bytes):
        raise Rejected("zip_bomb", f"The file would unpack to {unpacked} bytes.")


def _check_pages(file: BinaryIO, chunks: list[_Chunk]) -> None:
    """That pages are small, follow each other and hold as many values as was said of the column."""
    budget = Budget(MAX_PAGES * _PAGE_VALUES)
    left = MAX_PAGES
    for chunk in chunks:
        values, place = 0, chunk.start
        while place < chunk.end:
            left -= 1
            if left < 0:
                raise Rejected("too_complex", f"The file has more than {MAX_PAGES} pages.")
            held, place = _page(file, chunk, place, budget)
            values += held
        if values != chunk.values or place != chunk.end:
            raise malformed(f"the pages of {show(chunk.column.name)} are not what is said of them")


def _page(file: BinaryIO, chunk: _Chunk, place: int, budget: Budget) -> tuple[int, int]:
    """How many values a page holds, and where it ends."""
    header, length = _page_header(file, chunk, place, budget)
    unpacked, packed = (get(header, number, int, "the size of a page") for number in (2, 3))
    if not packed >= 0 or not unpacked >= 0:
        raise malformed("the size of a page is negative")
    if max(unpacked, packed) > MAX_PAGE_BYTES:
        raise Rejected(
            "too_large",
            f"A page of {show(chunk.column.name)} takes {unpacked} bytes; {MAX_PAGE_BYTES} are the most.",
            hint="Write smaller pages: a mebibyte is usual.",
        )
    kind = get(header, 1, int, "the type of a page")
    if kind in (_INDEX_PAGE, _DICTIONARY_PAGE):
        return 0, place + length + packed
    if kind not in (_DATA_PAGE, _DATA_PAGE_V2):
        raise malformed("a page is of an unknown type")
    data = get(header, 5 if kind == _DATA_PAGE else 8, dict, "the header of a page")
    values = get(data, 1, int, "the number of values")
    if values < 0:
        raise malformed("the number of values is negative")
    return values, place + length + packed


def _page_header(file: BinaryIO, chunk: _Chunk, place: int, budget: Budget) -> tuple[Fields, int]:
    for size in _HEADER_BYTES:
        file.seek(place)
        reader = Reader(file.read(min(size, chunk.end - place)), budget)
        try:
            return reader.struct(), reader.place
        except EOFError:
            continue
    raise malformed(f"a page of {show(chunk.column.name)} is cut short")


def lists_differ(name: str) -> Rejected:
    """The rejection of a column whose rows have not all the same shape, or of which some are missing."""
    return Rejected(
        "lists_differ",
        f"The lists in the column {show(name)} are not all of one length, or some are empty or missing.",
        hint="Pad or cut them to one length: the rows of an array all have the same shape.",
    )


def _encrypted() -> Rejected:
    return Rejected("encrypted_entry", "The file is encrypted.", hint="Write it without encryption.")
