"""What admission of a file of arrays hands on."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from workers.engine.admit.document import malformed

MAX_AXES = 32
MAX_LENGTH = 1 << 40


@dataclass(frozen=True)
class StoredArray:
    """An array whose bytes were found to fit its shape.

    `position` is where they begin in the file, or None where they are compressed; `chunks` reads them in
    parts that hold whole elements. `column_major` tells the order of the elements (Fortran's, else C's).
    `classes` are the names that the numbers of a target stand for, where they are known.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    position: int | None
    chunks: Callable[[], Iterator[bytes]]
    column_major: bool = False
    classes: tuple[str, ...] = ()


def elements(shape: tuple[int, ...]) -> int:
    """The number of elements; raises `Rejected` (`malformed`) where the shape is absurd."""
    if len(shape) > MAX_AXES or any(not 0 <= length < MAX_LENGTH for length in shape):
        raise malformed("an array has an impossible shape")
    return math.prod(shape)
