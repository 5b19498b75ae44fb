"""An admitted ONNX file without its large tensors, which it says where to find: imports no torch."""

import mmap
from collections.abc import Callable
from pathlib import Path

from workers.engine.admit.onnx import MAX_FIELDS
from workers.engine.admit.protobuf import BYTES, VARINT, Budget, Message

LARGE = 1 << 16
"""Bytes of a stored tensor that is worth leaving in the file."""

# The fields (onnx.proto) through which a model's stored tensors are reached.
_GRAPH, _INITIALIZER, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 7, 5, 9, 13, 14
_KEY, _VALUE, _EXTERNAL = 1, 2, 1

_Change = Callable[[Message], bytes]


def thin(path: Path) -> bytes:
    """The model in an admitted file, the raw data of its large tensors left there: each says where, as
    external data does. Whoever opens it is to look for the file in the folder where it is."""
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def payload(raw: Message) -> bytes:
        if raw.end - raw.start < LARGE:
            return _field(_RAW_DATA, BYTES, raw)
        place = {"location": path.name, "offset": str(raw.start), "length": str(raw.end - raw.start)}
        entries = b"".join(_entry(key, value) for key, value in place.items())
        return entries + _field(_DATA_LOCATION, VARINT, _EXTERNAL)

    def tensor(message: Message) -> bytes:
        return _nested(_INITIALIZER, _changed(message, {_RAW_DATA: payload}))

    def graph(message: Message) -> bytes:
        return _nested(_GRAPH, _changed(message, {_INITIALIZER: tensor}))

    return _changed(Message(data, 0, len(data), Budget(MAX_FIELDS)), {_GRAPH: graph})


def _changed(message: Message, changes: dict[int, _Change]) -> bytes:
    """The message with what the fields of these numbers are changed into."""
    written = []
    for number, wire, value in message.walk():
        change = changes.get(number)
        if change is not None and isinstance(value, Message):
            written.append(change(value))
        else:
            written.append(_field(number, wire, value))
    return b"".join(written)


def _entry(key: str, value: str) -> bytes:
    return _nested(_EXTERNAL_DATA, _nested(_KEY, key.encode()) + _nested(_VALUE, value.encode()))


def _nested(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _field(number: int, wire: int, value: int | Message) -> bytes:
    key = _varint(number << 3 | wire)
    if isinstance(value, int):
        return key + _varint(value)
    return key + (_varint(value.end - value.start) if wire == BYTES else b"") + bytes(value.view)


def _varint(value: int) -> bytes:
    """A number, negative ones as two's complement of 64 bits, seven bits a byte."""
    value, written = value & (1 << 64) - 1, bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
