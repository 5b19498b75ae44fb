"""Admission of what a program's tensors are like: their shapes, and the inputs with their variable axes."""

import math
import re
from typing import Any

from workers.engine.admit.archive import Archive, show
from workers.engine.admit.document import expect, field, malformed, union
from workers.engine.admit.dtypes import BYTES, dtype
from workers.engine.admit.program import Axis, ProgramInput
from workers.engine.admit.signature import input_name
from workers.engine.errors import Rejected

MAX_LENGTH = 1 << 40
MAX_AXES = 64
MAX_EXAMPLE_BYTES = 1 << 30

_PRODUCT = re.compile(r"Mul\(Integer\((\d{1,9})\), (.+)\)|(\d{1,9})\*(.+)", re.ASCII)
_SYMBOL = re.compile(r"Symbol\('([a-z]+\d+)'(, \w+=(True|False))*\)|([a-z]+\d+)", re.ASCII)
_STRIDED = 7


def check_byte_order(archive: Archive, root: str) -> None:
    """Raise `Rejected` unless the archive says of its folder `root` that numbers are little-endian."""
    if archive.read(f"{root}/byteorder", 16).strip() != b"little":
        raise Rejected("unsupported_byte_order", "The tensors are stored in big-endian byte order.")


def check_placement(meta: dict[str, Any], path: str) -> None:
    """Raise `Rejected` unless the tensor is dense and on the CPU."""
    if field(meta, "layout", int) != _STRIDED:
        raise Rejected("unsupported_layout", f"The tensor {show(path)} is not dense.")
    if field(field(meta, "device", dict), "type", str) != "cpu":
        raise Rejected(
            "not_on_cpu",
            f"The tensor {show(path)} was exported from another device than the CPU.",
            hint="Move the model and its example inputs to the CPU before torch.export.",
        )


def lengths(meta: dict[str, Any], key: str) -> tuple[int, ...]:
    """Fixed lengths or strides; raises `Rejected`."""
    return tuple(length_of(item) for item in field(meta, key, list))


def length_of(item: object) -> int:
    """A fixed length; raises `Rejected`."""
    length = field(item, "as_int", int)
    if not 0 <= length < MAX_LENGTH:
        raise Rejected("payload_size", f"A tensor has a length of {length}.")
    return length


def input_of(value: object, tensors: dict[str, Any], ranges: dict[str, Any]) -> ProgramInput:
    """An input as the graph has it; raises `Rejected`.

    `tensors` describes the graph's values, `ranges` bounds its symbols.
    """
    kind, argument = union(field(value, "arg", dict))
    if kind != "as_tensor":
        raise Rejected(
            "unsupported_input",
            "The model takes an input that is not a tensor.",
            hint="Give numbers and flags their values before exporting.",
        )
    name = input_name(field(argument, "name", str))
    meta = field(tensors, name, dict)
    check_placement(meta, name)
    shape = tuple(_axis(item, ranges, name) for item in field(meta, "sizes", list))
    return ProgramInput(name, name, dtype(field(meta, "dtype", int)), shape)


def _axis(item: object, ranges: dict[str, Any], name: str) -> int | Axis:
    kind, value = union(item)
    if kind != "as_expr":
        return length_of(item)
    multiple, text = _product(field(value, "expr_str", str)[:200], name)
    bounds = field(ranges, text, dict)
    minimum, maximum = _bound(bounds, "min_val"), _bound(bounds, "max_val")
    least, most = multiple * max(1, minimum or 1), None if maximum is None else multiple * maximum
    axis = Axis(text, least, most, _example(value, least, most), multiple)
    if axis.minimum >= MAX_LENGTH or (most is not None and most < axis.minimum):
        raise malformed(f"the axis {text} cannot have any length")
    return axis


def _product(length: str, name: str) -> tuple[int, str]:
    """The number and the symbol whose product a variable length is; raises `Rejected`."""
    product = _PRODUCT.fullmatch(length)
    multiple, factor = (int(product[1] or product[3]), product[2] or product[4]) if product else (1, length)
    symbol = _SYMBOL.fullmatch(factor)
    if symbol is None or not multiple:
        raise _dependent(name)
    return multiple, symbol[1] or symbol[4]


def _dependent(name: str) -> Rejected:
    return Rejected(
        "unsupported_dimension",
        f"The input {show(name)} has an axis whose length depends on that of another axis.",
        hint="Export it with independent torch.export.Dim axes, or multiples of such.",
    )


def _example(value: object, minimum: int, maximum: int | None) -> int:
    """The axis's length in the exported example, moved into its bounds; the least where none is told."""
    hint = expect(value, dict, "a symbol").get("hint")
    length = hint.get("as_int") if isinstance(hint, dict) else None
    if not isinstance(length, int) or isinstance(length, bool):
        return minimum
    return max(minimum, length if maximum is None else min(length, maximum))


def _bound(bounds: dict[str, Any], key: str) -> int | None:
    """A bound; None where it is absent or so large that it means no bound."""
    value = bounds.get(key)
    if value is None:
        return None
    bound = expect(value, int, f"the field {key!r}")
    return bound if abs(bound) < 1 << 62 else None


def check_independent(inputs: list[ProgramInput]) -> None:
    """Raise `Rejected` where an axis is a multiple of another."""
    multiples: dict[str, int] = {}
    for spec in inputs:
        for axis in spec.shape:
            if isinstance(axis, Axis) and multiples.setdefault(axis.symbol, axis.multiple) != axis.multiple:
                raise _dependent(spec.name)


def check_examples(inputs: list[ProgramInput]) -> None:
    """The trace allocates example inputs, with short variable axes: they must not be huge."""
    size = 0
    for spec in inputs:
        shape = (
            axis if isinstance(axis, int) else max(axis.example, 32 * axis.multiple) for axis in spec.shape
        )
        size += math.prod(shape) * BYTES[spec.dtype]
    if size > MAX_EXAMPLE_BYTES:
        raise Rejected("input_too_large", "The smallest inputs that the model takes are too large.")
