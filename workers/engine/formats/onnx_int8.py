"""ONNX files whose weights are 8-bit integers, made by ONNX Runtime's dynamic quantization."""

from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from workers.engine.errors import EngineError
from workers.engine.formats.onnx import strip


def write(source: Path, path: Path) -> None:
    """Write the `.onnx` file `source` with its weights as 8-bit integers.

    Activations are quantized as they come, with one scale for a tensor: a batch shares it. Products by
    weights, convolutions, LSTMs and tables of embeddings change; what lies inside of a loop does not.
    Raises `EngineError` (`not_quantizable`) where nothing in it changes, or ONNX Runtime refuses.
    """
    try:
        model = _folded(source, path)
        before = _operators(model)
        # of signed weights ONNX Runtime's integer convolutions are several times slower
        weights = QuantType.QUInt8 if any("Conv" in name for name in before) else QuantType.QInt8
        add_pre_process_metadata(model)  # else it advises, on the root logger, to do what was just done
        quantize_dynamic(model, path, weight_type=weights)
        model = onnx.load(path)
    except Exception as error:  # it has no errors of its own
        raise _not_quantizable("ONNX Runtime cannot quantize it") from error
    finally:
        path.unlink(missing_ok=True)
    if _operators(model) == before:
        raise _not_quantizable("it has nothing that ONNX Runtime quantizes")
    strip(model)
    onnx.save_model(model, path)


def _folded(source: Path, path: Path) -> onnx.ModelProto:
    """The model with its constants computed, by way of `path`: the exporter leaves large weights in pieces,
    and what nodes put together is not quantized."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def _operators(model: onnx.ModelProto) -> list[str]:
    """How often each occurs; in what order is up to whoever writes the file."""
    return sorted(node.op_type for node in model.graph.node)


def _not_quantizable(why: str) -> EngineError:
    return EngineError(
        "not_quantizable", f"The network has no int8 form: {why}.", hint="Leave out `quantize`."
    )
