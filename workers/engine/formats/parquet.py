"""Parquet files as stored arrays: read by Arrow, once they are admitted, one column at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workers.engine.admit import parquet
from workers.engine.admit.archive import show
from workers.engine.admit.document import malformed
from workers.engine.admit.parquet import Table, lists_differ
from workers.engine.admit.parquet_columns import Column
from workers.engine.admit.stored import StoredArray
from workers.engine.errors import Rejected

_BATCH_BYTES = 4 << 20
_MOST_BATCH_ROWS = 1 << 16
_BUFFER_BYTES = 1 << 20


@contextmanager
def stored(path: Path) -> Iterator[list[StoredArray]]:
    """The columns as arrays, readable while the context lasts; lists become axes.

    Values are checked while they are read. Raises `Rejected`: what admission refuses, `lists_differ`,
    `missing_values`, `malformed`.
    """
    table = parquet.admit(path)
    with _damage(), _opened(path, table) as file:
        yield [_array(file, table, column) for column in table.columns]


def _opened(path: Path, table: Table) -> pq.ParquetFile:
    """Set to read pages when they are needed: else a column's part of a row group is read at once."""
    return pq.ParquetFile(
        path,
        metadata=_metadata(table.footer),
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
        arrow_extensions_enabled=False,
    )


def _metadata(footer: bytes) -> pq.FileMetaData:
    """The description without the types that its writer had in Arrow: of these some are made by code that a
    file may name, and all are told in Parquet's own types as well."""
    plain = footer.replace(b"ARROW:schema", b"other:schema")
    length = len(plain).to_bytes(4, "little")
    return pq.read_metadata(pa.BufferReader(b"PAR1" + plain + length + b"PAR1"))


def _array(file: pq.ParquetFile, table: Table, column: Column) -> StoredArray:
    lengths = _lengths(file, table, column) if table.rows else ()
    chunks = partial(_chunks, file, table, column, lengths)
    return StoredArray(column.name, column.dtype, (table.rows, *lengths), position=None, chunks=chunks)


def _lengths(file: pq.ParquetFile, table: Table, column: Column) -> tuple[int, ...]:
    """Of the lists in the first row: those of the others have to be the same."""
    with _damage():
        array = next(_batches(file, table, column, 1), None)
    if array is None or len(array) != 1:
        raise malformed(f"the column {show(column.name)} does not hold the rows that it says")
    lengths = []
    for _ in range(column.axes):
        items = _items(array, column)
        if not len(items) or len(items) % len(array):
            raise lists_differ(column.name)
        lengths.append(len(items) // len(array))
        array = items
    return tuple(lengths)


def _chunks(file: pq.ParquetFile, table: Table, column: Column, lengths: tuple[int, ...]) -> Iterator[bytes]:
    step = max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES // max(1, column.row_bytes)))
    read = 0
    with _damage():
        for array in _batches(file, table, column, step):
            read += len(array)
            yield _values(array, column, lengths).tobytes()
    if read != table.rows:
        raise malformed(f"the column {show(column.name)} does not hold the rows that it says")


def _batches(file: pq.ParquetFile, table: Table, column: Column, rows: int) -> Iterator[pa.Array]:
    groups = list(table.groups)
    for batch in file.iter_batches(rows, row_groups=groups, columns=[column.name], use_threads=False):
        yield batch.column(0)


def _values(array: pa.Array, column: Column, lengths: tuple[int, ...]) -> NDArray[Any]:
    """The values of rows one after the other, in C order."""
    for length in lengths:
        items = _items(array, column)
        if (np.diff(array.offsets.to_numpy()) != length).any():
            raise lists_differ(column.name)
        array = items
    _demand_values(array, column)
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    if values.dtype != column.dtype:
        raise malformed(f"the column {show(column.name)} is not of the type that it says")
    return values


def _items(array: pa.Array, column: Column) -> pa.Array:
    _demand_values(array, column)
    if not pa.types.is_list(array.type):
        raise malformed(f"the column {show(column.name)} is not of the type that it says")
    return array.flatten()


def _demand_values(array: pa.Array, column: Column) -> None:
    if array.null_count:
        raise Rejected(
            "missing_values",
            f"The column {show(column.name)} has rows or values that are missing (null).",
            hint="Drop these rows, or fill them in; a label of −100 marks what is ignored.",
        )


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever Arrow raises on damage, as one rejection."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, EOFError, OverflowError) as error:
        raise Rejected(
            "corrupt_file",
            "The data in the file is damaged.",
            hint="Write the file anew and upload it again.",
        ) from error
