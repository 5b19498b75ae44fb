"""Arrays of which those rows alone come into memory that are asked for."""

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.engine.admit.stored import StoredArray
from workers.engine.errors import Rejected

_PART = 1 << 20  # bytes


class Rows(Protocol):
    """An array whose first axis counts rows, in memory or not. What works with data uses nothing else of it.

    Indexed by the numbers of rows, an array of one axis, it gives these rows in that order, copied.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of all axes, the rows' first."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]: ...


class ChosenRows:
    """Some rows of another array, in an order of their own. None is read before it is asked for."""

    def __init__(self, array: Rows, rows: NDArray[np.int64]) -> None:
        self._array: Rows = array
        self._rows: NDArray[np.int64] = rows
        if isinstance(array, ChosenRows):  # the array itself is asked
            self._array, self._rows = array._array, array._rows[rows]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows chosen."""
        return (len(self._rows), *self._array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the array."""
        return self._array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        return self._array[self._rows[rows]]


class FileRows:
    """An array in a file from byte `position` on, row after row.

    It is read and not mapped: what is mapped counts as address space, by which the memory of jobs is bounded.
    Takes over `descriptor`, and closes it. Reading raises `Rejected` (`truncated_file`).
    """

    def __init__(self, descriptor: int, dtype: str, shape: tuple[int, ...], position: int = 0) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._descriptor, self._position = descriptor, position
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of(cls, path: Path, array: StoredArray) -> "FileRows":
        """An array of a file; a compressed one is first unpacked to a temporary file without a name."""
        if array.position is not None:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), array.dtype, array.shape, array.position)
        with tempfile.TemporaryFile(buffering=0) as file:
            for chunk in array.chunks():
                file.write(chunk)
            return cls(os.dup(file.fileno()), array.dtype, array.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[Any]:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not found.nbytes:
            return found
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows are numbered 0 … {len(self) - 1}")
        view, size = memoryview(found.data).cast("B"), self._row_bytes
        starts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for start, end in pairwise(starts):  # rows that follow each other are one call
            self._fill(view[start * size : end * size], self._position + int(rows[start]) * size)
        return found

    def _fill(self, view: memoryview, position: int) -> None:
        while view:
            # Not preadv, which Python makes the call preadv2: the sandbox refuses it.
            read = os.pread(self._descriptor, min(len(view), _PART), position)
            if not read:
                raise Rejected("truncated_file", "The file is shorter than it was.", hint="Upload it again.")
            view[: len(read)] = read
            view, position = view[len(read) :], position + len(read)


@dataclass(frozen=True)
class ComputedArray(StoredArray):
    """An array that is nowhere stored as such: its `rows` are computed whenever they are asked for."""

    rows: Rows | None = None


def parts(array: Rows) -> Iterator[NDArray[Any]]:
    """All rows in order, about a mebibyte at a time."""
    size = math.prod(array.shape[1:]) * array.dtype.itemsize
    step = max(1, _PART // max(1, size))
    for start in range(0, len(array), step):
        yield array[np.arange(start, min(start + step, len(array)))]


def whole(array: Rows) -> NDArray[Any]:
    """All rows in memory: for what is small, such as labels."""
    return array[np.arange(len(array))]
