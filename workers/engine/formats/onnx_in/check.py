"""Whether an imported network computes what ONNX Runtime does, and where it first does not."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.engine import clean_process
from workers.engine.admit import onnx as admission
from workers.engine.admit.onnx_model import OnnxModel
from workers.engine.errors import EngineError, Rejected
from workers.engine.formats.onnx_in import runtime
from workers.engine.formats.onnx_in.module import interpreter
from workers.engine.formats.onnx_in.reader import input_names
from workers.engine.graph.indices import table_lengths
from workers.engine.graph.network import Dimension, Input, Network
from workers.engine.rounding import relative

TOLERANCE = 1e-3
"""The largest difference that is rounding, relative to the largest value of an output."""

_BATCHES = (2, 3)
_SEED = 0
_TIMEOUT = 300.0
_LARGEST_INTEGER = 8


@dataclass(frozen=True)
class Answer:
    """Random inputs of a network, and what it makes of them."""

    inputs: list[Tensor]
    outputs: list[Tensor]


def answers(network: Network) -> list[Answer]:
    """Those to compare by: at two batch sizes, and two lengths of other variable axes, where they vary."""
    return [_answer(network, _random(network, batch, turn)) for turn, batch in enumerate(_BATCHES)]


def check(path: Path, given: Sequence[Answer]) -> None:
    """Compare the answers of the network imported from the file with those of ONNX Runtime, which works in a
    process of its own. The network need not be there any more.

    Raises `Rejected`: `not_runnable` where ONNX Runtime cannot run the file, `differs_from_onnxruntime`,
    naming the first node whose output differs.
    """
    names = _names(admission.admit(path))  # which is not held: nor are pages of the file, then
    theirs = _run(path, names, [answer.inputs for answer in given], ())
    for answer, expected in zip(given, theirs, strict=True):
        largest = max(map(difference, answer.outputs, expected.values()))
        if not largest <= TOLERANCE:
            raise _differs(path, answer.inputs, largest)


def _names(model: OnnxModel) -> list[str]:
    return [spec.name for spec in model.graph.inputs]


def _answer(network: Network, inputs: list[Tensor]) -> Answer:
    with torch.no_grad():
        found = network(*inputs)
    return Answer(inputs, [found] if isinstance(found, Tensor) else list(found))


def difference(found: Tensor, expected: NDArray[Any]) -> float:
    """The largest difference, as a fraction of the largest expected value; infinite between different shapes.

    What is not finite in both is equal where it is the same.
    """
    values, truth = found.detach().to(torch.float64).numpy(), expected.astype(np.float64)
    if values.shape != truth.shape:
        return float("inf")
    same = (values == truth) | (np.isnan(values) & np.isnan(truth))
    apart = np.where(same, 0.0, np.abs(values - np.where(same, 0.0, truth)))
    largest = float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0))
    worst = relative(float(apart.max(initial=0.0)), largest)
    return float("inf") if math.isnan(worst) else worst


def _random(network: Network, batch: int, turn: int) -> list[Tensor]:
    """Noise, small whole numbers that every table has, ones for masks."""
    generator, tables = torch.Generator().manual_seed(_SEED + turn), table_lengths(network)
    size = network.batch_size(batch)
    made = []
    for spec in network.inputs:
        shape = [_length(axis, network, size, turn) for axis in spec.shape]
        made.append(_values(spec, shape, tables.get(spec.name, _LARGEST_INTEGER), generator))
    return made


def _length(axis: int | Dimension, network: Network, batch: int, turn: int) -> int:
    if isinstance(axis, int):
        return axis
    longer = axis.near(axis.example + axis.multiple * (2 + turn))
    return batch if axis.symbol == network.batch_symbol else longer


def _values(spec: Input, shape: list[int], table: int, generator: torch.Generator) -> Tensor:
    if spec.is_mask:
        return torch.ones(shape, dtype=spec.dtype)
    if spec.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(spec.dtype)
    most = 2 if spec.dtype is torch.bool else min(table, _LARGEST_INTEGER)
    return torch.randint(0, most, shape, generator=generator).to(spec.dtype)


def _run(
    path: Path, names: Sequence[str], turns: Sequence[Sequence[Tensor]], values: Sequence[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    """What ONNX Runtime makes of the inputs by those names, one turn after the other: the outputs in order,
    or the named values inside of the graph."""
    with tempfile.TemporaryDirectory() as folder:
        files = [[f"{folder}/{role}{n}.npz" for role in ("inputs", "outputs")] for n in range(len(turns))]
        for (given, _), tensors in zip(files, turns, strict=True):
            np.savez(given, *(tensor.numpy() for tensor in tensors))
        arguments = {
            "model": str(path),
            "names": list(names),
            "turns": files,
            "values": list(values),
        }
        try:
            found: list[str] = clean_process.run(runtime.run, arguments, _TIMEOUT)
        except clean_process.ProcessFailed as error:
            raise _not_runnable(error.detail) from error
        except EngineError as error:
            raise Rejected(error.code, error.detail, hint=error.hint) from error
        for _, made in files:
            with np.load(made, allow_pickle=False) as arrays:
                yield dict(zip(found, (arrays[name] for name in arrays.files), strict=True))


def _differs(path: Path, inputs: Sequence[Tensor], largest: float) -> Rejected:
    """The rejection, naming the first node that computes something else."""
    model = admission.admit(path)
    own = _inside(model, inputs)
    inside = [name for node in model.graph.nodes for name in node.outputs if name in own]
    [theirs] = _run(path, _names(model), [inputs], inside)
    for node in model.graph.nodes:
        for name in node.outputs:
            if name in own and name in theirs and not difference(own[name], theirs[name]) <= TOLERANCE:
                return _first_difference(f"The first node to differ is {node}", largest, node.name)
    return _first_difference("No single node could be found to differ", largest, None)


def _inside(model: OnnxModel, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The tensors inside of the graph, by name, as our operators compute them."""
    seen: dict[str, Tensor] = {}
    module = interpreter(model, input_names(model), seen)
    with torch.no_grad():
        module(*inputs)
    return seen


def _first_difference(where: str, largest: float, layer: str | None) -> Rejected:
    return Rejected(
        "differs_from_onnxruntime",
        f"The imported network does not compute what ONNX Runtime does: the outputs differ by "
        f"{largest:.2g} of the largest. {where}.",
        hint="This is a gap in the import. Upload a .pt2 of the network instead where PyTorch is at hand.",
        layer=layer or None,
    )


def _not_runnable(detail: str) -> Rejected:
    return Rejected(
        "not_runnable",
        f"ONNX Runtime could not run the model: {detail}",
        hint="Check that onnxruntime.InferenceSession opens and runs it.",
    )
