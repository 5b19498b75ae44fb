"""Stored tensors as torch's: large ones are copied once, when they are kept, and the file's pages let go."""

from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import torch
from numpy.typing import NDArray

from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node
from workers.engine.admit import onnx as admission
from workers.engine.admit.onnx_model import StoredTensor
from workers.engine.formats.onnx_in.constants import Constants
from workers.engine.formats.onnx_in.stored import in_file, is_large, loaded

_SIZE = 4096  # of a square of single precision: 64 MiB


def _stored(weights: NDArray[np.float32], folder: Path, name: str = "w") -> StoredTensor:
    x = array(1, weights.shape[0])
    model = model_of([node("MatMul", ["x", name], ["y"])], {"x": x}, ["y"], {name: weights})
    onnx.save(model, folder / "model.onnx")
    [stored] = admission.admit(folder / "model.onnx").graph.constants.values()
    return stored


def _noise(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((size, size), np.float32)


def test_a_tensor_that_is_kept_does_not_keep_the_file_in_memory(tmp_path: Path) -> None:
    weights = _noise(_SIZE)
    stored, process, constants = _stored(weights, tmp_path), psutil.Process(), Constants()
    before = process.memory_info().rss
    constants.load("w", stored)
    constants.keep("w", learned=True)
    grown = process.memory_info().rss - before
    [tensor] = constants.tensors.values()
    assert torch.equal(tensor, torch.from_numpy(weights))
    assert tensor.nbytes * 0.9 < grown < tensor.nbytes * 1.5
    assert torch.equal(in_file(stored), tensor), "the file is still there"


def test_what_is_kept_is_not_in_the_file(tmp_path: Path) -> None:
    weights = _noise(256)
    constants = Constants()
    constants.load("w", _stored(weights, tmp_path))
    [name] = constants.weights("w", "transposed", ("", "MatMul"), {"weight": constants.values["w"].t()})  # type: ignore[union-attr]
    kept = constants.tensors[constants.paths[name]]
    assert kept.is_contiguous()
    kept.zero_()
    assert torch.equal(constants.values["w"], torch.from_numpy(weights))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["w" * length for length in range(1, 5)])
def test_a_tensor_may_lie_at_any_address(name: str, tmp_path: Path) -> None:
    weights = _noise(256)
    stored = _stored(weights, tmp_path, name)
    assert is_large(stored)
    assert torch.equal(in_file(stored), torch.from_numpy(weights))
    assert torch.equal(loaded(stored), torch.from_numpy(weights))
