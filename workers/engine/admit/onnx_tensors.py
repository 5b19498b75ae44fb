"""Tensors of an ONNX file: their types, and payloads that fit their shapes."""

import math
import struct
from array import array

from workers.engine.admit.archive import show
from workers.engine.admit.document import malformed
from workers.engine.admit.dtypes import BYTES as ELEMENT_BYTES
from workers.engine.admit.onnx_model import StoredTensor
from workers.engine.admit.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, Fields, Message, integers
from workers.engine.errors import Rejected

MAX_LENGTH = 1 << 40
MAX_AXES = 32
MAX_LISTED = 1 << 20
"""Elements of a tensor written as a list of integers; beyond it, payloads have to be raw."""
LONGEST_NAME = 1000

_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
}
_STRING = 8
_TENSOR = {
    1: Field("dims", VARINT, many=True, packed=True),
    2: Field("data_type", VARINT),
    3: Field("segment", BYTES),
    4: Field("float_data", FIXED32, many=True, packed=True),
    5: Field("int32_data", VARINT, many=True, packed=True),
    6: Field("string_data", BYTES, many=True),
    7: Field("int64_data", VARINT, many=True, packed=True),
    8: Field("name", BYTES),
    9: Field("raw_data", BYTES),
    10: Field("double_data", FIXED64, many=True, packed=True),
    11: Field("uint64_data", VARINT, many=True, packed=True),
    12: Field("doc_string", BYTES),
    13: Field("external_data", BYTES, many=True),
    14: Field("data_location", VARINT),
    16: Field("metadata_props", BYTES, many=True),
}
# Where the elements of each type are listed, and how one is packed into raw bytes.
_LISTS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data"}
_CODES = {"uint8": "B", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "bool": "B"}
_CODES |= {"float16": "H", "bfloat16": "H"}  # listed as their bits
_PAYLOADS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "raw_data")


def tensor(message: Message, what: str = "") -> tuple[str, StoredTensor]:
    """A stored tensor and its name, or `what` in messages where it has none.

    Raises `Rejected`: `external_data`, `string_tensor`, `unsupported_dtype`, `payload_size`, `malformed`.
    """
    fields = message.fields(_TENSOR, "a tensor")
    name = text(fields, "name", "the name of a tensor")
    shown = show(name or what)
    _refuse(fields, shown)
    dtype = dtype_of(fields.get("data_type", [0]), f"the tensor {shown}")
    shape = lengths(fields.get("dims", []), f"the tensor {shown}")
    data = _payload(fields, dtype, shape, shown)
    size = math.prod(shape) * ELEMENT_BYTES[dtype]
    if len(data) != size:
        raise Rejected(
            "payload_size",
            f"The tensor {shown} of shape {list(shape)} holds {len(data)} bytes where {dtype} takes {size}.",
        )
    return name, StoredTensor(dtype, shape, data)


def dtype_of(values: "list[int | Message]", what: str) -> str:
    """The element type that ONNX numbers so; raises `Rejected` (`unsupported_dtype`, `string_tensor`)."""
    (number,) = values
    if number == _STRING:
        raise Rejected(
            "string_tensor",
            f"{what.capitalize()} holds strings.",
            hint="Leave text processing out of the model and give it numbers.",
        )
    if not isinstance(number, int) or number not in _DTYPES:
        raise Rejected(
            "unsupported_dtype",
            f"{what.capitalize()} has an element type that is not supported (number {number} of ONNX).",
            hint="Complex, 4-bit, 8-bit floating and wide unsigned types are not supported.",
        )
    return _DTYPES[number]


def lengths(values: "list[int | Message]", what: str) -> tuple[int, ...]:
    """The lengths of a tensor's axes; raises `Rejected` (`bad_shape`)."""
    shape = integers(values, MAX_AXES, f"the shape of {what}")
    if any(not 0 <= length < MAX_LENGTH for length in shape):
        raise Rejected("bad_shape", f"The shape of {what} has a length that cannot be: {list(shape)}.")
    return shape


def text(fields: Fields, key: str, what: str) -> str:
    """A string that names something, "" where it is missing; raises `Rejected` (`hostile_name`)."""
    return as_text(fields[key][0], what) if key in fields else ""


def as_text(value: "int | Message", what: str) -> str:
    """Bytes as printable text; raises `Rejected` (`hostile_name`)."""
    name = value.text(what, LONGEST_NAME) if isinstance(value, Message) else ""
    if not name.isprintable():
        raise Rejected("hostile_name", f"{show(name)} is not accepted as {what}: it cannot be printed.")
    return name


def _refuse(fields: Fields, shown: str) -> None:
    if "external_data" in fields or fields.get("data_location", [0])[0] != 0:
        raise Rejected(
            "external_data",
            f"The tensor {shown} is kept in another file.",
            hint="Save the model as one file: onnx.save_model(model, path, save_as_external_data=False).",
        )
    if "segment" in fields:
        raise Rejected("malformed", f"The tensor {shown} is stored in segments, which is not supported.")
    if "string_data" in fields:
        dtype_of([_STRING], f"the tensor {shown}")


def _payload(fields: Fields, dtype: str, shape: tuple[int, ...], shown: str) -> memoryview:
    """The elements as raw bytes; what lies in the file as such is not copied."""
    given = [key for key in _PAYLOADS if key in fields]
    if not given:
        return memoryview(b"")
    place = _LISTS.get(dtype, "int32_data")
    if len(given) > 1 or given[0] not in ("raw_data", place):
        raise malformed(f"the elements of the tensor {shown} are not where its type has them")
    values = fields[given[0]]
    if given[0] in ("raw_data", "float_data", "double_data"):
        return _joined([value.view for value in values if isinstance(value, Message)])
    numbers = integers(values, min(MAX_LISTED, math.prod(shape)), f"the tensor {shown}")
    try:
        return memoryview(array(_CODES[dtype], numbers).tobytes())
    except (OverflowError, struct.error):
        raise malformed(f"an element of the tensor {shown} is not in the range of {dtype}") from None


def _joined(views: list[memoryview]) -> memoryview:
    return views[0] if len(views) == 1 else memoryview(b"".join(views))
