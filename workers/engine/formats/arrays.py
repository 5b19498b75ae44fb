"""Data sets: files of named arrays, that networks are trained and tested on."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from workers.engine.admit import npz, safetensors
from workers.engine.admit.archive import show
from workers.engine.admit.stored import StoredArray
from workers.engine.data import IGNORED_LABEL, TARGET
from workers.engine.errors import Rejected
from workers.engine.rows import ComputedArray, FileRows, Rows

Stored: TypeAlias = AbstractContextManager[list[StoredArray]]


def _parquet(path: Path) -> Stored:
    from workers.engine.formats import parquet  # noqa: PLC0415 -- Arrow is large, and few jobs need it

    return parquet.stored(path)


def _images(path: Path) -> Stored:
    from workers.engine.formats import images  # noqa: PLC0415 -- nor have all jobs to do with pictures

    return images.stored(path)


_FORMATS: dict[str, Callable[[Path], Stored]] = {
    "npz": npz.admit,
    "safetensors": safetensors.admit,
    "parquet": _parquet,
    "zip": _images,
}
FORMATS = tuple(_FORMATS)
"""The formats a data set may have."""


@dataclass(frozen=True)
class ArrayFacts:
    """An array: `shape` begins with the rows; `minimum` and `maximum` are those of its values.

    Whole-number targets may hold −100, which marks what is ignored: `ignored` counts it, and the range leaves
    it out; None where nothing else is there. `classes` are the names that labels stand for, where known.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float | None
    maximum: float | None
    ignored: int = 0
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetFacts:
    """Arrays that share their first axis, `rows` long."""

    rows: int
    arrays: tuple[ArrayFacts, ...]


def inspect(path: Path, format: str) -> DatasetFacts:  # noqa: A002  # the word the contract uses
    """What a data set holds. Its values are read once, in parts of a mebibyte.

    Raises `Rejected`: what admission refuses, `no_arrays`, `no_rows`, `rows_differ`, `not_finite`,
    `unsupported_dtype`, `unsupported_format`.
    """
    with _admit(path, format) as arrays:
        rows = _rows(arrays)
        return DatasetFacts(rows, tuple(_facts(array) for array in arrays))


def read(path: Path, format: str) -> dict[str, Rows]:  # noqa: A002  # the word the contract uses
    """The arrays by name. Rows are read when they are asked for, from the file or, where it is compressed,
    from what it was unpacked to; arrays in column-major order alone are held in memory.

    Raises `Rejected` like `inspect`, but does not look at the values.
    """
    with _admit(path, format) as arrays:
        _rows(arrays)
        return {array.name: _load(path, array) for array in arrays}


def _admit(path: Path, format: str) -> AbstractContextManager[list[StoredArray]]:  # noqa: A002
    if format not in _FORMATS:
        raise Rejected(
            "unsupported_format",
            f"{show(format)} is no format of data sets.",
            hint=f"Use one of {', '.join(FORMATS)}.",
        )
    return _FORMATS[format](path)


def _rows(arrays: list[StoredArray]) -> int:
    """The length of the first axis that all arrays share."""
    if not arrays:
        raise Rejected("no_arrays", "The data set holds no arrays.")
    for array in arrays:
        if array.dtype == "bfloat16":
            raise Rejected(
                "unsupported_dtype",
                f"The array {show(array.name)} has the dtype bfloat16, which is not supported in data sets.",
                hint="Save it as float32.",
            )
        if 0 in array.shape or not array.shape:
            raise Rejected("no_rows", f"The array {show(array.name)} has no rows or no values.")
    if len({array.shape[0] for array in arrays}) > 1:
        counts = ", ".join(f"{array.name} has {array.shape[0]}" for array in arrays[:20])
        raise Rejected(
            "rows_differ",
            f"The arrays differ in their number of rows: {counts}.",
            hint="The first axis of every array counts the examples.",
        )
    return arrays[0].shape[0]


def _facts(array: StoredArray) -> ArrayFacts:
    minimum, maximum, ignored = math.inf, -math.inf, 0
    labels = array.name == TARGET and array.dtype.startswith("int")
    for chunk in array.chunks():
        stored = np.frombuffer(chunk, array.dtype)
        values = stored[stored != IGNORED_LABEL] if labels else stored
        ignored += len(stored) - len(values)
        if len(values):
            # NaN is neither smaller nor larger, so Python's own min would lose it.
            minimum = float(np.minimum(minimum, values.min()))
            maximum = float(np.maximum(maximum, values.max()))
    if ignored == math.prod(array.shape):
        return ArrayFacts(array.name, array.dtype, array.shape, None, None, ignored)
    if not (math.isfinite(minimum) and math.isfinite(maximum)):
        raise Rejected(
            "not_finite",
            f"The array {show(array.name)} holds NaN or infinite values.",
            hint="Drop or replace these rows.",
        )
    return ArrayFacts(array.name, array.dtype, array.shape, minimum, maximum, ignored, array.classes)


def _load(path: Path, array: StoredArray) -> Rows:
    if isinstance(array, ComputedArray) and array.rows is not None:
        return array.rows
    return _in_memory(array) if array.column_major else FileRows.of(path, array)


def _in_memory(array: StoredArray) -> Rows:
    """An array whose rows lie scattered over the file."""
    values = np.empty(math.prod(array.shape), array.dtype)
    filled = 0
    for chunk in array.chunks():
        part = np.frombuffer(chunk, array.dtype)
        values[filled : filled + len(part)] = part
        filled += len(part)
    return values.reshape(array.shape, order="F")
