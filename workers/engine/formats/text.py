"""Raw text: its lines, and rows of the tokens that were made of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.engine.errors import Rejected
from workers.engine.rows import FileRows, Rows

FORMAT = "txt"
PART = 1 << 16  # characters of a line at a time
TOKEN = "<i4"  # noqa: S105 -- a dtype

_HINT = "Save the text in UTF-8, one example a line."
_LEAST = 2  # tokens: networks are traced for no fewer


def count(path: Path) -> int:
    """How many lines of a file are not blank; it is read once. Raises `Rejected`: `not_text`, `no_rows`."""
    try:
        rows = sum(1 for line in lines(path) if not _is_binary(line))
    except UnicodeDecodeError:
        raise Rejected("not_text", "The file is not text in UTF-8.", hint=_HINT) from None
    if not rows:
        raise Rejected("no_rows", "The file has no lines but blank ones.", hint=_HINT)
    return rows


def _is_binary(line: str) -> bool:
    if "\0" in line:
        raise Rejected("not_text", "The file holds null characters: it is no text.", hint=_HINT)
    return False


def lines(path: Path) -> Iterator[str]:
    """Every line that is not blank, without its end; of a very long one what comes first."""
    with path.open(encoding="utf-8-sig") as file:
        goes_on = False
        while part := file.readline(PART):
            if not goes_on and part.strip():
                yield part.rstrip("\n")
            goes_on = not part.endswith("\n")


def parts(path: Path) -> Iterator[str]:
    """The whole text in order, cut at the ends of lines unless they are very long."""
    with path.open(encoding="utf-8-sig") as file:
        while part := file.read(PART):
            yield part + file.readline(PART)


def windows(ids: Path, tokens: int, length: int) -> tuple[Rows, Rows]:
    """Rows of `length` tokens one after the other, and for each token the one that follows it.

    `ids` holds `tokens` of them as int32. What is left at the end is no row.
    """
    shape, width = ((tokens - 1) // length, length), np.dtype(TOKEN).itemsize
    first, second = (FileRows(_opened(ids), TOKEN, shape, shift * width) for shift in (0, 1))
    return first, second


def padded(ids: Path, lengths: NDArray[np.int32], padding: int) -> tuple[Rows, Rows]:
    """Rows of different lengths, padded to the longest, and their mask: ones where a token is.

    `ids` holds them as int32, one after the other.
    """
    flat = FileRows(_opened(ids), TOKEN, (int(lengths.sum(dtype=np.int64)),))
    return _Padded(flat, lengths, padding), _Mask(lengths)


def constant(rows: int, like: Rows, value: int) -> Rows:
    """The same number everywhere, in no memory."""
    return np.broadcast_to(np.int64(value), (rows, *like.shape[1:]))


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class _Mask:
    """Which positions of padded rows are real."""

    dtype = np.dtype(np.int64)

    def __init__(self, lengths: NDArray[np.int32]) -> None:
        self.shape = len(lengths), max(_LEAST, int(lengths.max(initial=0)))
        self._lengths = lengths

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return (np.arange(self.shape[1]) < self._lengths[rows][:, None]).astype(self.dtype)


class _Padded:
    """Rows of a flat array, each padded at its end."""

    def __init__(self, flat: Rows, lengths: NDArray[np.int32], padding: int) -> None:
        self._flat, self._padding, self._mask = flat, padding, _Mask(lengths)
        self._lengths, self._ends = lengths, lengths.cumsum(dtype=np.int64)
        self.shape, self.dtype = self._mask.shape, flat.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = np.full((len(rows), self.shape[1]), self._padding, self.dtype)
        spans = [
            np.arange(end - length, end)
            for end, length in zip(self._ends[rows], self._lengths[rows], strict=True)
        ]
        found[self._mask[rows] == 1] = self._flat[np.concatenate([np.empty(0, np.int64), *spans])]
        return found
