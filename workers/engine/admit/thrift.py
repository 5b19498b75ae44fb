"""Thrift's compact protocol from strangers: structures as plain values, within a budget.

The format is that of Apache Thrift's specification of the compact protocol. What says which field is what is
the business of who reads them.
"""

from typing import Any, TypeAlias, TypeVar

from workers.engine.admit.document import expect, malformed
from workers.engine.errors import Rejected

Fields: TypeAlias = dict[int, Any]
"""The fields of a structure by number: integers, truth values, bytes, lists and structures."""

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_MOST_DEPTH = 16
_MOST_BITS = 64
_T = TypeVar("_T")


class Budget:
    """How many values may still be read."""

    def __init__(self, values: int) -> None:
        self.left = values

    def spend(self, values: int = 1) -> None:
        """Count some; raises `Rejected` (`too_complex`)."""
        self.left -= values
        if self.left < 0:
            raise Rejected(
                "too_complex",
                "The file describes more columns, row groups or pages than are read.",
                hint="Write fewer columns, and row groups of many rows.",
            )


class Reader:
    """Structures in `data`, one after the other, from `place` on.

    Raises `EOFError` where the bytes end too early, and `Rejected`: `malformed`, `too_deep`, `too_complex`.
    """

    def __init__(self, data: bytes, budget: Budget) -> None:
        self.place = 0
        self._data = data
        self._budget = budget

    def struct(self, depth: int = 0) -> Fields:
        """The next structure, which must not have a field twice."""
        if depth > _MOST_DEPTH:
            raise Rejected("too_deep", "The file's description of itself is nested too deeply.")
        fields: Fields = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            if number in fields:
                raise malformed("a field is there twice")
            self._budget.spend()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise malformed("a value is of an unknown type")

    def _list(self, depth: int) -> list[Any]:
        if depth > _MOST_DEPTH:
            raise Rejected("too_deep", "The file's description of itself is nested too deeply.")
        head = self._byte()
        length = self._varint() if head >> 4 == 15 else head >> 4
        self._budget.spend(length)
        return [self._value(head & 15, depth + 1) for _ in range(length)]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < _MOST_BITS:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise malformed("a number is longer than any")

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise EOFError
        self.place += 1
        return self._data[self.place - 1]

    def _bytes(self, length: int) -> bytes:
        start, end = self.place, self.place + length
        if end > len(self._data):
            raise EOFError
        self.place = end
        return self._data[start:end]


def get(fields: object, number: int, kind: type[_T], what: str) -> _T:
    """The field `number` of a structure, called `what` in messages; raises `Rejected` (`malformed`) where it
    is none, or where there is no structure."""
    return expect(expect(fields, dict, f"what holds {what}").get(number), kind, what)
