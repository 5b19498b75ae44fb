"""Admitted tensors as torch's."""

import struct

import numpy as np
import torch
from torch import Tensor

from workers.engine.admit.onnx_model import StoredTensor


def first(stored: StoredTensor) -> bool | int | float:
    """The first element, by no operation that a trace would record."""
    if stored.dtype == "bfloat16":
        return struct.unpack("<f", bytes(2) + bytes(stored.data[:2]))[0]  # type: ignore[no-any-return]
    value: bool | int | float = np.frombuffer(stored.data, stored.dtype, 1)[0].item()
    return value


def loaded(stored: StoredTensor) -> Tensor:
    """A copy of a stored tensor; any byte but 0 is true."""
    dtype = torch.uint8 if stored.dtype == "bool" else getattr(torch, stored.dtype)
    if not len(stored.data):
        return torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
    values = torch.frombuffer(bytearray(stored.data), dtype=dtype).reshape(stored.shape)
    return values != 0 if stored.dtype == "bool" else values
