"""Admitted tensors as torch's."""

import mmap
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
    values = torch.empty(stored.shape, dtype=dtype)
    if len(stored.data):
        values.view(-1).view(torch.uint8).numpy().data[:] = stored.data
        _let_go(stored.data)
    return values != 0 if stored.dtype == "bool" else values


def _let_go(data: memoryview) -> None:
    """Leave pages of the file that were copied to the system: it keeps them while there is room."""
    file = data.obj
    if isinstance(file, mmap.mmap):
        begin = _address(data) - _address(memoryview(file))
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        if (size := begin + len(data) - first) >= mmap.PAGESIZE:
            file.madvise(mmap.MADV_DONTNEED, first, size)


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)
