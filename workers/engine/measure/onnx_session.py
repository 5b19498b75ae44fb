"""Stock ONNX Runtime, set up so that measurements repeat. Imports neither torch nor onnx."""

from pathlib import Path

import onnxruntime as ort


def open_session(model: Path, threads: int) -> ort.InferenceSession:
    """A session on the CPU with `threads` threads inside of an operator and one operator at a time.

    Raises whatever ONNX Runtime raises for a file that it cannot load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # idle threads that spin would take the processor from whatever is timed next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
