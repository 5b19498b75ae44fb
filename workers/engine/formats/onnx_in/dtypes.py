"""The element types of ONNX that tensors may have."""

import torch

from workers.engine.formats.onnx_in.registry import Call

_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


def to_dtype(number: int, call: Call) -> torch.dtype:
    """The type that ONNX numbers so; raises `Rejected` (`unsupported_operator`)."""
    if number not in _DTYPES:
        raise call.unsupported(f"the element type number {number}")
    return _DTYPES[number]
