"""Working through large outputs in pieces."""

from collections.abc import Iterator

from torch import Tensor

_VALUES = 1 << 24  # 128 MiB in double precision


def row_chunks(first: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Aligned pieces of tensors with as many rows (N, ...); a piece of the first stays small."""
    step = max(1, _VALUES * len(first) // max(1, first.numel()))
    for start in range(0, len(first), step):
        yield tuple(rows[start : start + step] for rows in (first, *others))
