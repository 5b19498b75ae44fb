"""ONNX files that stock ONNX Runtime opens."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from workers.engine.errors import EngineError
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, export
from workers.engine.graph.recurrent import kept_whole

MAX_BYTES = (1 << 31) - 1
"""What protobuf can hold, and so a single ONNX file."""

_HINT = 'Ask for outputs ["pt2"] only, or replace the operator.'
_OPERATOR = re.compile(r"op='(\w+\.\w+)'")


def write(network: Network, path: Path) -> None:
    """Write `network` as one ONNX file, without a trace of where it was made.

    Inputs keep their names and variable axes; a single output is called `output`, several `output_0` and so
    on. `network` is not changed. Raises `EngineError`: `onnx_unsupported`, naming the layer or the operator
    where torch says which, or `onnx_too_large` beyond 2 GB.
    """
    demand_translatable(network)
    model = _convert(export(network.module, network.inputs), _output_names(network))
    strip(model)
    if model.ByteSize() > MAX_BYTES:
        raise EngineError("onnx_too_large", "The network is larger than the 2 GB an ONNX file can hold.")
    onnx.save_model(model, path)


def demand_translatable(network: Network) -> None:
    """Raise `EngineError` (`onnx_unsupported`), naming the layer, for what torch writes without an error as a
    file that does not run: an LSTM with a projection, which ONNX's LSTM has not."""
    for node in network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.lstm.input):
        call = surgery.arguments(node)
        stacks = call["num_layers"] * (2 if call["bidirectional"] else 1)
        if len(call["params"]) != stacks * (4 if call["has_biases"] else 2):
            owner, _, leaf = str(call["params"][0].target).rpartition(".")
            raise EngineError(
                "onnx_unsupported",
                f"ONNX has no LSTM with a projection, which {owner or leaf} has (proj_size).",
                hint=_HINT,
                layer=owner or leaf,
                field="outputs",
            )


def _convert(program: ExportedProgram, outputs: list[str]) -> onnx.ModelProto:
    # What comes with it takes half a second and 60 MB, which looking at an upload can do without.
    from workers.engine.formats.onnx_rnn import TRANSLATIONS  # noqa: PLC0415

    with _quiet(), kept_whole(), torch.no_grad():
        try:
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                output_names=outputs,
                custom_translation_table=TRANSLATIONS,
            )
            model: onnx.ModelProto = exported.model_proto
        except Exception as error:  # the exporter lets errors of every conversion through
            raise _unsupported(error) from error
    return model


def _unsupported(error: BaseException) -> EngineError:
    found = next((match for cause in _chain(error) if (match := _OPERATOR.search(str(cause)))), None)
    what = f"the operator {found[1]!r}" if found else "one of the network's operators"
    return EngineError(
        "onnx_unsupported",
        f"The network cannot be written as ONNX: there is no conversion of {what}.",
        hint=_HINT,
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _output_names(network: Network) -> list[str]:
    """Names that no input has."""
    (output,) = (node for node in network.module.graph.nodes if node.op == "output")
    count, prefix = len(tree_leaves(output.args)), "output"
    while any(spec.name.startswith(prefix) for spec in network.inputs):
        prefix = f"network_{prefix}"
    return [prefix] if count == 1 else [f"{prefix}_{place}" for place in range(count)]


def strip(message: Any) -> None:
    """Drop descriptions and metadata from a protobuf message: they hold source lines and paths."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                strip(child)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's advice out of the output: the worker's standard output is a protocol."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
