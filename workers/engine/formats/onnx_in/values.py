"""What flows between ONNX operators: tensors, and small values that are known while the graph is traced."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.engine.errors import Rejected

MOST_HOST = 1024
"""Elements of a value that is kept as Python numbers."""
MOST_FOLDED = 1 << 28
"""Elements of a constant that may be computed when a file is read."""

_PRECISIONS: dict[torch.dtype, Callable[[Any], Any]] = {torch.float32: np.float32, torch.float16: np.float16}

Size: TypeAlias = Any
"""A length: an int, or a symbol of the trace."""


@dataclass(frozen=True)
class Host:
    """An array of Python numbers and symbolic sizes: what shapes, axes and indices are computed with."""

    array: NDArray[Any]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its axes."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self.array.ndim


Value: TypeAlias = Tensor | Host


def host(values: Iterable[Any] | Any, dtype: torch.dtype = torch.int64, shape: Any = None) -> Host:
    """A `Host` of numbers in the precision of `dtype`; `shape` is theirs where they are listed flat."""
    items = list(values.flat) if isinstance(values, np.ndarray) else values
    if isinstance(values, np.ndarray) and shape is None:
        shape = values.shape
    flat = (
        [_rounded(item, dtype) for item in items] if isinstance(items, Sequence) else [_rounded(items, dtype)]
    )
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return Host(
        array.reshape((len(flat),) if shape is None and isinstance(items, Sequence) else shape or ()), dtype
    )


def _rounded(item: Any, dtype: torch.dtype) -> Any:
    if isinstance(item, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return item
    if dtype is torch.bool:
        return bool(item)
    if dtype.is_floating_point:
        return float(_PRECISIONS.get(dtype, np.float64)(item))
    return int(item)


def kept(tensor: Tensor) -> Value:
    """A constant as it is best worked with: small whole numbers and single numbers on the host."""
    small = tensor.numel() == 1 or (not tensor.is_floating_point() and tensor.numel() <= MOST_HOST)
    return host(tensor.reshape(-1).tolist(), tensor.dtype, tuple(tensor.shape)) if small else tensor


def as_tensor(value: Value) -> Tensor:
    """A tensor of the trace."""
    if isinstance(value, Tensor):
        return value
    flat = list(value.array.flat)
    if not any(map(is_symbolic, flat)):
        return torch.tensor(flat, dtype=value.dtype).reshape(value.shape)
    return torch.stack([torch.full((), item, dtype=value.dtype) for item in flat]).reshape(value.shape)


def is_symbolic(item: Any) -> bool:
    """Whether a number is one of the trace's symbols."""
    return isinstance(item, (torch.SymInt, torch.SymFloat, torch.SymBool))


def numbers(value: Value | None, what: str) -> list[Any]:
    """The numbers of a value that must be known while the graph is traced, such as a shape.

    Raises `Rejected` (`data_dependent`) for a tensor.
    """
    if value is None:
        return []
    if isinstance(value, Host):
        return list(value.array.flat)
    if type(value) is Tensor:
        return value.reshape(-1).tolist()
    raise Rejected(
        "data_dependent",
        f"The {what} depends on the data that the model is given.",
        hint="Only models whose shapes follow from the shapes of their inputs are supported.",
    )


def number(value: Value | None, what: str, default: Any = None) -> Any:
    """The one number of a value that must be known; `default` where it is left out or empty."""
    found = numbers(value, what)
    return found[0] if found else default


def ints(value: Value | None, what: str) -> list[Size]:
    """Whole numbers that must be known: lengths, axes, indices."""
    return [item if is_symbolic(item) else int(item) for item in numbers(value, what)]


def scalar_for(value: Value, other: Value) -> Any:
    """What to give torch for one operand of a pointwise operator: a plain number where `value` is one and
    does not add axes to `other`."""
    if (
        isinstance(value, Host)
        and value.array.size == 1
        and value.ndim <= other.ndim
        and isinstance(other, Tensor)
    ):
        return value.array.flat[0]
    return as_tensor(value)


def larger(x: Size, y: Size) -> Size:
    """The larger of two sizes, of which one may be symbolic."""
    return torch.sym_max(x, y) if is_symbolic(x) or is_symbolic(y) else max(x, y)  # type: ignore[no-untyped-call]


def smaller(x: Size, y: Size) -> Size:
    """The smaller of two sizes, of which one may be symbolic."""
    return torch.sym_min(x, y) if is_symbolic(x) or is_symbolic(y) else min(x, y)  # type: ignore[no-untyped-call]


def each(function: Callable[..., Any], *values: Host, dtype: torch.dtype | None = None) -> Host:
    """`function` on every element, with broadcasting."""
    arrays = np.broadcast_arrays(*(value.array for value in values))
    flat = [function(*items) for items in zip(*(array.flat for array in arrays), strict=True)]
    return host(flat, dtype or values[0].dtype, arrays[0].shape)


def on_host(*values: Value | None) -> bool:
    """Whether everything given is known while the graph is traced."""
    return all(isinstance(value, Host) for value in values if value is not None)


def bounded(shape: Sequence[Size]) -> list[Size]:
    """A shape to be made; raises `Rejected` (`too_large`) where it is absurd."""
    if math.prod(length for length in shape if not is_symbolic(length)) > MOST_FOLDED:
        raise Rejected("too_large", f"The model makes a tensor of the shape {list(map(str, shape))}.")
    return list(shape)
