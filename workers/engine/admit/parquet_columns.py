"""The columns of a Parquet file: which numbers they hold, in how many axes."""

import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from workers.engine.admit.archive import show
from workers.engine.admit.document import expect, malformed, path_of
from workers.engine.admit.thrift import Fields, get
from workers.engine.errors import Rejected

MAX_COLUMNS = 1_000
MAX_AXES = 8

_REPEATED = 2
_LIST, _LIST_CONVERTED, _MAPS = 3, 3, (1, 2)
_INTEGER, _HALF = 10, 15
_PHYSICAL = {0: "bool", 1: "int32", 2: "int64", 4: "float32", 5: "float64"}
_INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_CONVERTED = dict(enumerate(_INTEGERS, 11))
_OTHER_LOGICAL = {
    1: "text",
    2: "a map",
    4: "text",
    5: "decimal numbers",
    6: "dates",
    7: "times",
    8: "timestamps",
    11: "nothing but nulls",
    12: "JSON",
    13: "BSON",
    14: "UUIDs",
}
_OTHER_CONVERTED = {
    0: "text",
    1: "a map",
    4: "text",
    5: "decimal numbers",
    6: "dates",
    7: "times",
    8: "times",
    9: "timestamps",
    10: "timestamps",
    19: "JSON",
    20: "BSON",
    21: "intervals",
}
_UNKNOWN = "values of an unknown type"
_OTHER_PHYSICAL = {3: "timestamps", 6: "text or bytes", 7: "bytes"}


@dataclass(frozen=True)
class Column:
    """A column that becomes an array: `axes` besides the rows', `values` in each row."""

    name: str
    dtype: str
    axes: int
    values: int = 1

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory."""
        return self.values * int(self.dtype.lstrip(string.ascii_letters) or 8) // 8

    def of(self, values: int) -> "Column":
        """The same column with as many values in each row."""
        return replace(self, values=values)


def columns(schema: list[Any]) -> list[Column]:
    """The columns that a schema describes: its elements in depth-first order, the root first.

    Raises `Rejected`: `unsupported_dtype`, `too_deep`, `too_many_entries`, `hostile_name`, `malformed`.
    """
    elements = iter([expect(element, dict, "an element of the schema") for element in schema])

    def following() -> Fields:
        if (element := next(elements, None)) is None:
            raise malformed("the schema is cut short")
        if not expect(element.get(4, b""), bytes, "a name").isascii():  # within a list: Arrow would read it
            raise Rejected("hostile_name", "A part of a column has a name that is not written in ASCII.")
        return element

    count = get(following(), 5, int, "the number of columns")
    if count > MAX_COLUMNS:
        raise Rejected(
            "too_many_entries",
            f"The file has {count} columns; {MAX_COLUMNS} are the most.",
            hint="Put what belongs together into one column of lists.",
        )
    found = [_column(following) for _ in range(count)]
    if next(elements, None) is not None:
        raise malformed("the schema has elements that belong to no column")
    if len({column.name for column in found}) < len(found):
        raise malformed("two columns have one name")
    return found


def _column(following: Callable[[], Fields]) -> Column:
    """The next column, whose lists are walked to the numbers in them."""
    element, axes = following(), 0
    name = path_of(get(element, 4, bytes, "a name").decode("latin-1"), "the name of a column")
    if element.get(3) == _REPEATED:
        raise _unsupported(name, "repeated values that are no list")
    while _children(element):
        if axes == MAX_AXES:
            raise Rejected("too_deep", f"The column {show(name)} nests more than {MAX_AXES} lists.")
        element, axes = _item(element, name, following), axes + 1
    return Column(name, _dtype(element, name), axes)


def _item(element: Fields, name: str, following: Callable[[], Fields]) -> Fields:
    """What a list holds: the child of its repeated group, or in old files the repeated child itself."""
    logical, converted = _logical(element), element.get(6)
    if logical in _MAPS or converted in _MAPS:
        raise _unsupported(name, "a map")
    if (logical != _LIST and converted != _LIST_CONVERTED) or _children(element) != 1:
        raise _unsupported(name, "a structure")
    repeated = following()
    if repeated.get(3) != _REPEATED:
        raise malformed(f"the list {show(name)} repeats nothing")
    if _children(repeated) > 1:
        raise _unsupported(name, "a structure")
    return following() if _children(repeated) else repeated


def _children(element: Fields) -> int:
    count = expect(element.get(5, 0), int, "the number of children")
    if count < 0 or (count == 0 and 1 not in element):
        raise malformed("an element of the schema is neither a group nor a value")
    return count


def _dtype(element: Fields, name: str) -> str:
    physical = expect(element.get(1), int, "a type")
    logical, converted = _logical(element), element.get(6)
    if logical == _INTEGER:
        about = get(get(element, 10, dict, "a type"), _INTEGER, dict, "an integer type")
        dtype = f"{'' if about.get(2) else 'u'}int{about.get(1)}"
        return dtype if dtype in _INTEGERS else _refuse(name, "integers of an unknown width")
    if logical == _HALF and physical == 7:
        return "float16"
    if logical is not None:
        return _refuse(name, _OTHER_LOGICAL.get(logical, _UNKNOWN))
    known, others = (_PHYSICAL, _OTHER_PHYSICAL)
    if converted is not None:
        known, others, physical = _CONVERTED, _OTHER_CONVERTED, converted
    return known.get(physical) or _refuse(name, others.get(physical, _UNKNOWN))


def _logical(element: Fields) -> int | None:
    """Which of the logical types, a union, an element has."""
    union = expect(element.get(10, {}), dict, "a type")
    return next(iter(union), None)


def _refuse(name: str, what: str) -> str:
    raise _unsupported(name, what)


def _unsupported(name: str, what: str) -> Rejected:
    return Rejected(
        "unsupported_dtype",
        f"The column {show(name)} holds {what}, which is not supported in data sets.",
        hint="Keep numbers, truth values, and lists of them; drop or encode the others.",
    )
