"""Stored tensors as torch's: copied once, and the file's pages let go."""

from pathlib import Path

import numpy as np
import onnx
import psutil
import torch

from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node
from workers.engine.admit import onnx as admission
from workers.engine.formats.onnx_in.stored import loaded

_SIZE = 4096  # of a square of single precision: 64 MiB


def test_a_copy_does_not_keep_the_file_in_memory(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((_SIZE, _SIZE), np.float32)
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {"x": array(1, _SIZE)}, ["y"], {"w": weights})
    onnx.save(model, tmp_path / "model.onnx")
    [stored] = admission.admit(tmp_path / "model.onnx").graph.constants.values()
    process = psutil.Process()
    before = process.memory_info().rss
    tensor = loaded(stored)
    grown = process.memory_info().rss - before
    assert torch.equal(tensor, torch.from_numpy(weights))
    assert tensor.nbytes * 0.9 < grown < tensor.nbytes * 1.5
    assert torch.equal(loaded(stored), tensor), "the file is still there"
