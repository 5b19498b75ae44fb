"""A file without its large tensors is the same model, which reads them from where they are."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import external_data_helper, helper

from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node
from workers.engine.formats.onnx_in.thin import thin

_BYTES = 128 * 128 * 4  # of the least tensor that is left in the file


def _model(name: str = "w") -> Any:
    """A product, a sum of a small tensor, and attributes below zero."""
    nodes = [
        node("MatMul", ["x", name], ["product"]),
        node("Add", ["product", "b"], ["sum"]),
        node("Softmax", ["sum"], ["y"], axis=-1),
    ]
    constants = {name: array(128, 128), "b": array(128, seed=1)}
    return model_of(nodes, {"x": array(2, 128, seed=2)}, ["y"], constants)


def _saved(model: Any, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_only_large_tensors_are_left_behind(tmp_path: Path) -> None:
    model = _model()
    path = _saved(model, tmp_path)
    found = onnx.load_model_from_string(thin(path))
    large, small = found.graph.initializer
    assert external_data_helper.uses_external_data(large)
    assert not large.HasField("raw_data")
    assert small == model.graph.initializer[1]
    assert len(thin(path)) < path.stat().st_size - _BYTES + 200


def test_with_its_tensors_it_is_the_model_again(tmp_path: Path) -> None:
    model = _model()
    path = _saved(model, tmp_path)
    found = onnx.load_model_from_string(thin(path))
    external_data_helper.load_external_data_for_model(found, str(tmp_path))
    for tensor in found.graph.initializer:
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    assert found == model


@pytest.mark.parametrize("name", ["w" * length for length in range(1, 5)])
def test_onnxruntime_finds_them_at_any_address(name: str, tmp_path: Path) -> None:
    path = _saved(_model(name), tmp_path)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    session = ort.InferenceSession(thin(path), options)
    x = array(2, 128, seed=2)
    [found] = session.run(None, {"x": x})
    [expected] = ort.InferenceSession(str(path)).run(None, {"x": x})
    assert np.array_equal(found, expected)


def test_what_lies_outside_of_the_graph_stays(tmp_path: Path) -> None:
    model = _model()
    helper.set_model_props(model, {"author": "somebody"})
    model.model_version = -1
    found = onnx.load_model_from_string(thin(_saved(model, tmp_path)))
    assert found.model_version == -1
    assert found.metadata_props == model.metadata_props
    assert found.opset_import == model.opset_import
