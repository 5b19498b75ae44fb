"""Attributes of ONNX nodes: one value each, of the type it declares."""

from collections.abc import Callable, Mapping
from typing import Any

from workers.engine.admit.archive import show
from workers.engine.admit.document import malformed
from workers.engine.admit.onnx_model import Attribute
from workers.engine.admit.onnx_schema import ATTRIBUTE
from workers.engine.admit.onnx_tensors import tensor, text
from workers.engine.admit.protobuf import Fields, Message, floats, integers
from workers.engine.errors import Rejected

MAX_LISTED = 1 << 16
"""Numbers of one attribute."""
_LONGEST_STRING = 1000
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
_OTHERS = ("tensors", "graphs", "tp", "type_protos", "sparse_tensor", "sparse_tensors", "ref_attr_name")


def read(message: Message, where: str) -> tuple[str, Attribute | Message]:
    """An attribute's name and value; a graph is left to the caller, as its message.

    `where` ends the messages of `Rejected`: `malformed`, `unsupported_attribute`, and what tensors may raise.
    """
    fields = message.fields(ATTRIBUTE, f"an attribute{where}")
    name = text(fields, "name", f"an attribute's name{where}")
    kind = fields.get("type", [0])[0]
    key = _FIELDS.get(kind) if isinstance(kind, int) else None
    if key is None or any(other in fields for other in _OTHERS):
        raise Rejected(
            "unsupported_attribute",
            f"The attribute {show(name)}{where} is of a type that is not supported (number {kind} of ONNX).",
        )
    if any(other in fields for other in _FIELDS.values() if other != key):
        raise malformed(f"the attribute {show(name)}{where} has a value that is not of its type")
    return name, _value(fields, key, f"the attribute {show(name)}{where}")


def _value(fields: Fields, key: str, what: str) -> Attribute | Message:
    values = fields.get(key, [])
    if key in _LISTS:
        return _LISTS[key](values, MAX_LISTED, what)
    if not values and key in ("t", "g"):
        raise malformed(f"{what} has no value")
    # a writer of proto3 leaves out what is zero
    value = values[0] if values else 0
    if key in ("f", "s"):
        return _LISTS[f"{key}s"](values, 1, what)[0] if values else ("" if key == "s" else 0.0)
    return tensor(value, what)[1] if key == "t" and isinstance(value, Message) else value


def _strings(values: list[int | Message], most: int, what: str) -> tuple[str, ...]:
    if len(values) > most:
        raise Rejected("too_large", f"{what} has more than {most} strings.")
    return tuple(value.text(what, _LONGEST_STRING) for value in values if isinstance(value, Message))


_LISTS: Mapping[str, Callable[[list[int | Message], int, str], tuple[Any, ...]]] = {
    "ints": integers,
    "floats": floats,
    "strings": _strings,
    "fs": floats,
    "ss": _strings,
}
