"""Protocol buffers from strangers: messages are walked where they lie, within a budget, and never copied."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from workers.engine.admit.document import malformed
from workers.engine.errors import Rejected

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10

Fields: TypeAlias = dict[str, list["int | Message"]]
"""The fields of a message by name, each with every value it was given."""


@dataclass(frozen=True)
class Field:
    """A field that a message may have, written as `wire`, `most` times.

    `many` where it may occur more than once, `packed` where numbers may lie in one block.
    """

    name: str
    wire: int
    many: bool = False
    packed: bool = False
    most: int = 1 << 17


Schema: TypeAlias = Mapping[int, Field]
"""The fields of a message by number; what is not there makes the file malformed."""


class Budget:
    """How many fields may still be read, over all messages of a file."""

    def __init__(self, fields: int) -> None:
        self.left = fields

    def spend(self) -> None:
        """Count one field; raises `Rejected` (`too_complex`)."""
        self.left -= 1
        if self.left < 0:
            raise too_complex("fields", "than an ordinary model of the size that is supported")


class Message:
    """The bytes from `start` to `end` of a file: a message, a string or a block of numbers."""

    __slots__ = ("budget", "data", "end", "start")  # there are hundreds of thousands

    def __init__(self, data: memoryview, start: int, end: int, budget: Budget) -> None:
        self.data = data
        self.start = start
        self.end = end
        self.budget = budget

    @property
    def view(self) -> memoryview:
        """The bytes themselves, not copied."""
        return self.data[self.start : self.end]

    def text(self, what: str, longest: int) -> str:
        """A string of at most `longest` bytes, called `what` in messages; raises `Rejected`."""
        if self.end - self.start > longest:
            raise Rejected("hostile_name", f"{what} is longer than {longest} bytes.")
        try:
            return str(self.view, "utf-8")
        except UnicodeDecodeError:
            raise malformed(f"{what} is not UTF-8") from None

    def varints(self) -> Iterator[int]:
        """The numbers of a packed block, as signed 64-bit integers."""
        place = self.start
        while place < self.end:
            value, place = _varint(self.data, place, self.end)
            self.budget.spend()
            yield signed(value)

    def fields(self, schema: Schema, what: str) -> Fields:
        """Everything in the message, called `what`; raises `Rejected` (`malformed`, `too_complex`)."""
        found: Fields = {}
        for number, wire, value in self.walk():
            field = schema.get(number)
            if field is None:
                raise malformed(f"{what} has a field that is not known (number {number})")
            if wire != field.wire and not (field.packed and wire == BYTES):
                raise malformed(f"the field {field.name} of {what} is not written as its type is")
            values = found.setdefault(field.name, [])
            if values and not field.many:
                raise malformed(f"the field {field.name} of {what} occurs twice")
            if len(values) == field.most:
                raise too_complex(field.name, f"than the {field.most} that {what} may have")
            values.append(value)
        return found

    def walk(self) -> Iterator[tuple[int, int, "int | Message"]]:
        """Every field as it comes: its number, how it is written, and its value; numbers of a fixed size are
        messages, too. Raises `Rejected` (`malformed`, `too_complex`)."""
        data, place, end, budget = self.data, self.start, self.end, self.budget
        while place < end:
            budget.spend()
            key, place = _varint(data, place, end)
            wire = key & 7
            if wire == VARINT:
                value, place = _varint(data, place, end)
                yield key >> 3, wire, signed(value)
                continue
            if wire == BYTES:
                length, place = _varint(data, place, end)
            elif wire in (FIXED32, FIXED64):
                length = 4 if wire == FIXED32 else 8
            else:
                raise malformed(f"a field is written in a way that is not known ({wire})")
            if length > end - place:
                raise malformed("a field is longer than what holds it")
            yield key >> 3, wire, Message(data, place, place + length, budget)
            place += length


def integers(values: "list[int | Message]", most: int, what: str) -> tuple[int, ...]:
    """The integers of a repeated field, packed or not; raises `Rejected` where there are more than `most`."""
    found: list[int] = []
    for value in values:
        for number in [value] if isinstance(value, int) else value.varints():
            if len(found) == most:
                raise Rejected("too_large", f"{what} has more than {most} numbers.")
            found.append(number)
    return tuple(found)


def floats(values: "list[int | Message]", most: int, what: str) -> tuple[float, ...]:
    """The single-precision numbers of a repeated field, packed or not; bounded like `integers`."""
    blocks = [value for value in values if isinstance(value, Message)]
    if sum(block.end - block.start for block in blocks) > 4 * most:
        raise Rejected("too_large", f"{what} has more than {most} numbers.")
    found: list[float] = []
    for block in blocks:
        if (block.end - block.start) % 4:
            raise malformed(f"{what} ends within a number")
        found.extend(number for (number,) in struct.iter_unpack("<f", block.view))
    return tuple(found)


def too_complex(what: str, than: str) -> Rejected:
    """The rejection of a file with too many parts."""
    return Rejected(
        "too_complex",
        f"The file has more {what} {than}.",
        hint="Simplify the graph, and keep weights as raw data.",
    )


def signed(value: int) -> int:
    """An unsigned 64-bit integer read as two's complement."""
    return value - (1 << 64) if value >> 63 else value


def _varint(data: memoryview, place: int, end: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where the bytes after it begin."""
    if place < end and data[place] < 0x80:  # nearly all of them
        return data[place], place + 1
    value = shift = 0
    while True:
        if place >= end:
            raise malformed("a number ends too early")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= 7 * _MOST_VARINT_BYTES:
            raise malformed("a number has more than 64 bits")
    if value >> 64:
        raise malformed("a number has more than 64 bits")
    return value, place
