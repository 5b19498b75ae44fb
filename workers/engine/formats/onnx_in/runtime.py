"""ONNX Runtime on a user's file; called in a clean process. Imports no torch."""

from pathlib import Path
from typing import Any

import numpy as np

from workers.engine.errors import EngineError
from workers.engine.formats.onnx_in.thin import thin
from workers.engine.formats.reason import reason


def run(model: str, names: list[str], turns: list[tuple[str, str]], values: list[str]) -> list[str]:
    """Run the file at `model` on arrays in the order of its inputs' `names`: those that the first file of a
    turn holds, whose second is for the outputs.

    Where `values` are given, they are what is left: values inside of the graph that are tensors. Returns what
    each array is called. Raises `EngineError` (`not_runnable`).
    """
    kept: list[str] = []
    try:
        session = _session(Path(model), values)
        for inputs, outputs in turns:
            found = _outputs(session, names, inputs)
            kept = [name for name in found if not values or name in values]
            np.savez(outputs, *(found[name] for name in kept))
    except Exception as error:  # whatever ONNX Runtime raises
        raise EngineError(
            "not_runnable",
            f"ONNX Runtime cannot run the model: {reason(error).rstrip('.')}.",
            hint="Check that onnxruntime.InferenceSession opens and runs it.",
        ) from error
    return kept


def _session(file: Path, values: list[str]) -> Any:
    """A session that takes large tensors from the file: all that it parses it would hold twice."""
    import onnxruntime as ort  # noqa: PLC0415  # in the clean process alone

    content = thin(file)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # what is compared is the file, not what an optimiser makes of it
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # else weights are laid out anew, and held twice, for calls that are only a few
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    model = _with_outputs(content, values) if values else content
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _outputs(session: Any, names: list[str], inputs: str) -> dict[str, np.ndarray]:
    wanted = [spec.name for spec in session.get_outputs()]
    taken = {spec.name for spec in session.get_inputs()}
    with np.load(inputs, allow_pickle=False) as arrays:
        given = {name: arrays[key] for name, key in zip(names, arrays.files, strict=True) if name in taken}
    return dict(zip(wanted, session.run(wanted, given), strict=True))


def _with_outputs(content: bytes, values: list[str]) -> bytes:
    """The same model, with values inside of it among its outputs."""
    import onnx  # noqa: PLC0415  # where a difference has to be found

    model = onnx.load_model_from_string(content)
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in values if name not in known
    )
    return bytes(model.SerializeToString())
