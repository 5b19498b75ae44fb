"""Small ONNX files, and what ONNX Runtime makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from workers.engine.admit import onnx as onnx_admission
from workers.engine.formats.onnx_in.check import difference
from workers.engine.formats.onnx_in.module import interpreter
from workers.engine.formats.onnx_in.reader import input_names, read

Array = NDArray[Any]
OPSET = 20
IR = 10


def array(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    """Noise; whole numbers from −3 to 3 for integers."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-3, 4, shape).astype(dtype) if dtype is not np.bool_ else rng.random(shape) < 0.5


def model_of(
    nodes: Sequence[Any],
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = OPSET,
    variable: bool = True,
) -> Any:
    """A model; nodes of one operator get numbers, and first axes of inputs vary together where `variable`."""
    for place, call in enumerate(nodes):
        if sum(call.op_type == other.op_type for other in nodes) > 1:
            call.name = f"{call.name} {place}"
    values = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(value.dtype),
            ["batch", *value.shape[1:]] if variable and value.ndim else value.shape,
        )
        for name, value in inputs.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        values,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR)


def saved(model: Any, folder: Path) -> Path:
    """The model as a file."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def runtime(path: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """What ONNX Runtime computes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: list[Array] = ort.InferenceSession(str(path), options).run(None, dict(inputs))
    return found


def computes(path: Path, inputs: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    """Without a trace, the file computes what it does in ONNX Runtime."""
    model = onnx_admission.admit(path)
    with torch.no_grad():
        _compare(interpreter(model, input_names(model))(*_tensors(inputs)), path, inputs, tolerance)


def agree(path: Path, inputs: Mapping[str, Array], tolerance: float = 1e-5) -> Any:
    """The network read from a file, having computed what ONNX Runtime does of these inputs."""
    network = read(path).network
    with torch.no_grad():
        _compare(network(*_tensors(inputs)), path, inputs, tolerance)
    return network


def _tensors(inputs: Mapping[str, Array]) -> list[Tensor]:
    return [torch.from_numpy(value) for value in inputs.values()]


def _compare(found: Any, path: Path, inputs: Mapping[str, Array], tolerance: float) -> None:
    outputs = [found] if isinstance(found, Tensor) else list(found)
    expected = runtime(path, inputs)
    for output, truth in zip(outputs, expected, strict=True):
        assert str(output.dtype).removeprefix("torch.") == str(truth.dtype)
        assert difference(output, truth) <= tolerance


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    """One call."""
    return helper.make_node(operator, list(inputs), list(outputs), name=f"the {operator}", **attributes)
