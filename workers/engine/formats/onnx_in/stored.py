"""Admitted tensors as torch's."""

import mmap
import struct

import numpy as np
import torch
from torch import Tensor

from workers.engine.admit.onnx_model import StoredTensor
from workers.engine.formats.onnx_in.thin import LARGE


def first(stored: StoredTensor) -> bool | int | float:
    """The first element, by no operation that a trace would record."""
    if stored.dtype == "bfloat16":
        return struct.unpack("<f", bytes(2) + bytes(stored.data[:2]))[0]  # type: ignore[no-any-return]
    value: bool | int | float = np.frombuffer(stored.data, stored.dtype, 1)[0].item()
    return value


def is_large(stored: StoredTensor) -> bool:
    """Whether it is worth leaving in the file until it is known what becomes of it."""
    return len(stored.data) >= LARGE and stored.dtype != "bool" and isinstance(stored.data.obj, mmap.mmap)


def in_file(stored: StoredTensor) -> Tensor:
    """A large tensor where it lies in the file, at whatever address: to be read, and not written to."""
    return torch.frombuffer(stored.data, dtype=getattr(torch, stored.dtype)).reshape(stored.shape)


def loaded(stored: StoredTensor) -> Tensor:
    """A copy of a stored tensor; any byte but 0 is true."""
    dtype = torch.uint8 if stored.dtype == "bool" else getattr(torch, stored.dtype)
    if not len(stored.data):
        return torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
    values = torch.frombuffer(bytearray(stored.data), dtype=dtype).reshape(stored.shape)
    let_go(stored)
    return values != 0 if stored.dtype == "bool" else values


def let_go(stored: StoredTensor) -> None:
    """Leave pages of the file that were copied to the system: it keeps them while there is room."""
    data, file = stored.data, stored.data.obj
    if isinstance(file, mmap.mmap):
        begin = _address(data) - _address(memoryview(file))
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        if (size := begin + len(data) - first) >= mmap.PAGESIZE:
            file.madvise(mmap.MADV_DONTNEED, first, size)


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)
