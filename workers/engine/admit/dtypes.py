"""The element types of stored tensors."""

from workers.engine.errors import Rejected

BYTES = {
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "bool": 1,
    "bfloat16": 2,
}
"""Bytes per element, by torch's name."""

_SERIALIZED = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}


def dtype(number: int) -> str:
    """The name of the `ScalarType` that torch.export's schema numbers so; raises `Rejected`."""
    if number not in _SERIALIZED:
        raise Rejected(
            "unsupported_dtype",
            f"The model uses an element type that is not supported (number {number} of the export schema).",
            hint="Complex, quantised and 8-bit floating types are not supported.",
        )
    return _SERIALIZED[number]
