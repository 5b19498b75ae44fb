"""An uploaded ONNX file as a network."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from workers.engine.admit import onnx as admission
from workers.engine.admit.onnx_model import Graph, GraphInput, OnnxModel
from workers.engine.errors import Rejected
from workers.engine.formats.imported import Imported, Remark
from workers.engine.formats.onnx_in import operators as _operators  # noqa: F401  # registers them
from workers.engine.formats.onnx_in.module import interpreter
from workers.engine.formats.onnx_in.names import identifier
from workers.engine.formats.reason import reason
from workers.engine.graph.network import Dimension, Input, Network, examples, trace

_BOUND = re.compile(r"Constraints violated \(([\w, ]+)\)")
_SUGGESTED = re.compile(r"(\w+) = Dim\('\1'(?:, min=(\d{1,12}))?(?:, max=(?:(\d{1,12})|oo))?\)")
_MULTIPLE = re.compile(r"(\w+) = (\d{1,6})\*(\w+)$", re.MULTILINE)
_TRIES = 3
# The least lengths that variable axes other than the batch are tried with, each a step longer than the last:
# what is too short does not fit through a network, and images are often halved five times.
_LEAST = ((1, 0), (64, 32), (512, 64))
_ROW_BY_ROW = Remark(
    "one_row",
    "The file declares that the number of rows varies, but the network runs for one row only: it gets them "
    "one by one, and so do its artifacts.",
)


def read(path: Path) -> Imported:
    """The network in an uploaded `.onnx`, in evaluation mode, on the CPU.

    The file is admitted, its nodes are interpreted by operators of torch and traced: neither ONNX's own
    parser nor ONNX Runtime sees it. Inputs keep their names, made identifiers; variable axes stay variable.
    Raises `Rejected`.
    """
    model = admission.admit(path)
    return network_of(model)


def network_of(model: OnnxModel) -> Imported:
    """The network of an admitted model; raises `Rejected`."""
    names = input_names(model)
    module = interpreter(model, names)
    inputs = [_inputs(model.graph.inputs, names, *least) for least in _LEAST]
    fitting, remarks = _with_rows_that_fit(module, inputs)
    return Imported(_traced(module, fitting), (*remarks, *_remarks(model.graph)))


def _traced(module: nn.Module, inputs: list[Input], tries: int = _TRIES) -> Network:
    """The trace, with what torch finds of variable axes: the length of a table of positions that bounds one,
    the number that all its lengths are multiples of."""
    try:
        return trace(module, inputs)
    except Rejected:
        raise
    except Exception as error:  # whatever torch raises on a graph that makes no sense to it
        found = _found(str(error))
        if tries == 1 or not found:
            raise _cannot_trace(error, inputs) from error
    return _traced(module, [_within(spec, found) for spec in inputs], tries - 1)


def _found(said: str) -> dict[str, Dimension]:
    """What torch says of axes, by symbol: `h = Dim('h', min=2)`, or `_h = Dim('_h')` and `h = 32*_h`."""
    bounded = {
        match[1]: Dimension(match[1], int(match[2] or 1), int(match[3]) if match[3] else None)
        for match in _SUGGESTED.finditer(said)
    }
    for symbol, factor, of in _MULTIPLE.findall(said):
        root, multiple = bounded.pop(of, Dimension(of)), max(1, int(factor))
        most = None if root.maximum is None else multiple * root.maximum
        bounded[symbol] = Dimension(symbol, multiple * root.minimum, most, multiple=multiple)
    return bounded


def _within(spec: Input, found: Mapping[str, Dimension]) -> Input:
    """The input with what was found of its axes."""
    shape = [
        _narrowed(axis, found[axis.symbol]) if isinstance(axis, Dimension) and axis.symbol in found else axis
        for axis in spec.shape
    ]
    return replace(spec, shape=tuple(shape))


def _narrowed(axis: Dimension, to: Dimension) -> Dimension:
    """The axis where both allow a length; torch speaks of multiples of what it was told."""
    multiple = axis.multiple * to.multiple
    least = max(axis.minimum, to.minimum * axis.multiple)
    most = None if to.maximum is None else to.maximum * axis.multiple
    narrow = Dimension(axis.symbol, least, most, axis.example, multiple)
    return replace(narrow, example=narrow.near(axis.example))


def _remarks(graph: Graph) -> Iterator[Remark]:
    count = sum(node.operator == "DequantizeLinear" for node in graph.nodes)
    if count:
        yield Remark(
            "quantised_weights",
            f"Quantised weights ({count} tensors) were turned into the numbers that they stand for: the "
            "network is compressed, and its artifacts are written, in floating point.",
        )


def _with_rows_that_fit(
    module: nn.Module, candidates: Sequence[list[Input]]
) -> tuple[list[Input], list[Remark]]:
    """What fits through the network, be it but one row: files declare axes variable that are not, beside a
    state or a shape that was fixed for one row."""
    try:
        return _fitting(module, candidates), []
    except Rejected as rejected:
        single = [_single_row(inputs) for inputs in candidates]
        if rejected.code != "cannot_trace" or single == list(candidates):
            raise
        with suppress(Rejected):
            return _fitting(module, single), [_ROW_BY_ROW]
        raise


def _single_row(inputs: Sequence[Input]) -> list[Input]:
    """The inputs with one in the place of every axis that varies with the number of rows."""
    rows = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], Dimension)}
    return [replace(spec, shape=tuple(1 if axis in rows else axis for axis in spec.shape)) for spec in inputs]


def _fitting(module: nn.Module, candidates: Sequence[list[Input]]) -> list[Input]:
    """The first description of the inputs whose examples fit through the network."""
    failures = []
    for inputs in candidates if candidates[0] != candidates[-1] else candidates[:1]:
        try:
            with torch.no_grad():
                module(*examples(inputs))
        except Rejected as rejected:
            if rejected.code != "cannot_trace":
                raise
            failures.append(rejected)
        else:
            return inputs
    raise failures[-1]


def input_names(model: OnnxModel) -> list[str]:
    """What the inputs are called in the network: as in the file, made identifiers, each its own."""
    names: list[str] = []
    for spec in model.graph.inputs:
        name, place = identifier(spec.name), 2
        while name in names:
            name, place = f"{identifier(spec.name)}_{place}", place + 1
        names.append(name)
    return names


def _inputs(specs: Sequence[GraphInput], names: Sequence[str], least: int, step: int) -> list[Input]:
    symbols: dict[str, Dimension] = {}
    inputs = []
    for spec, name in zip(specs, names, strict=True):
        shape: list[int | Dimension] = []
        for place, axis in enumerate(spec.shape or ()):
            if isinstance(axis, str) and axis not in symbols:
                symbol = identifier(axis)
                while any(known.symbol == symbol for known in symbols.values()):
                    symbol += "_"
                minimum = (
                    1 if place == 0 else least + step * sum(known.minimum > 1 for known in symbols.values())
                )
                symbols[axis] = Dimension(symbol, minimum, None, minimum)
            shape.append(symbols[axis] if isinstance(axis, str) else axis)
        inputs.append(Input(name, getattr(torch, spec.dtype or "float32"), tuple(shape)))
    return inputs


def _cannot_trace(error: Exception, inputs: Sequence[Input]) -> Rejected:
    bound = _BOUND.search(str(error))
    symbols = set(bound[1].split(", ")) if bound else set()
    axes = [
        f"{spec.name}[{place}]"
        for spec in inputs
        for place, axis in enumerate(spec.shape)
        if isinstance(axis, Dimension) and axis.symbol in symbols
    ]
    if axes:
        return Rejected(
            "axis_not_free",
            f"The model takes certain lengths only where it declares variable axes: {', '.join(axes)}.",
            hint="Declare these axes with the lengths that will be used: "
            "python -m onnxruntime.tools.make_dynamic_shape_fixed.",
            field=axes[0].partition("[")[0],
        )
    return Rejected(
        "cannot_trace",
        f"Torch cannot run the model: {reason(error)}",
        hint="Check that the model runs in ONNX Runtime for inputs of several sizes, or declare fixed axes.",
    )
