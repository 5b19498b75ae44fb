"""How long every form of a layer takes beside the dense layer, in the runtime that ships."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from torch.fx import Node

from workers.engine.formats import onnx as onnx_format
from workers.engine.graph import surgery
from workers.engine.graph.excerpt import COPY, excerpt
from workers.engine.graph.network import Network, trace
from workers.engine.layers.base import Form, Layer
from workers.engine.measure.latency import Latency, interleave, onnx_runner
from workers.engine.memory import Memory

_SHARED_BYTES = 1 << 30
_ROUNDS, _MOST_ROUNDS = 20, 200


def time_forms(
    network: Network,
    layer: Layer,
    forms: Sequence[Form],
    find: Callable[[Network], Sequence[Layer]],
    folder: Path,
    *,
    threads: int,
    seconds: float,
) -> list[Latency]:
    """The latency of a layer's calls alone, for batch 1: dense first, then in each form, all in turns.

    Args:
        network: read only; `layer` is one of those that `find` makes of it.
        folder: for the files that are timed; they are gone afterwards.
        seconds: of all rounds together, once each has had twenty.

    Raises:
        EngineError: the calls cannot be written as ONNX, or not be run.
        KeyError, ValueError: they are no such layer on their own.
    """
    part = excerpt(network, calls_of(layer), 1 + len(forms))
    own = {each.name: each for each in find(part)}
    memory = Memory(_SHARED_BYTES)  # all copies hold the same weight
    for place, form in enumerate(forms, 1):
        copy = own[f"{COPY.format(place)}.{layer.name}"]
        copy.memory, copy.polished = memory, False
        copy.methods[form.method].rewrite(form.rank)
    surgery.prune(part.module)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = _files(trace(part.module, part.inputs), 1 + len(forms), folder)
        examples = part.examples()
        runners = {
            str(place): onnx_runner(path, [examples[at] for at in taken], threads)
            for place, (path, taken) in enumerate(files)
        }
        timed = interleave(runners, seconds=seconds, min_runs=_ROUNDS, max_runs=_MOST_ROUNDS, twice=True)
    finally:
        shutil.rmtree(folder)
    return list(timed.values())


def calls_of(layer: Layer) -> list[Node]:
    """The calls that a form of the layer may change."""
    return list(dict.fromkeys(site.node for site in (*layer.sites, *layer.observed_sites)))


def _files(part: Network, copies: int, folder: Path) -> list[tuple[Path, list[int]]]:
    """One ONNX file for each copy, and which of the inputs it takes."""
    whole = folder / "whole.onnx"
    onnx_format.write(part, whole)
    model = onnx.load(whole)
    names, outputs = [each.name for each in model.graph.input], list(model.graph.output)
    each, files = len(outputs) // copies, []
    for place in range(copies):
        cut = _only(model, outputs[place * each : (place + 1) * each])
        path = folder / f"{place}.onnx"
        onnx.save_model(cut, path)
        files.append((path, [names.index(entry.name) for entry in cut.graph.input]))
    return files


def _only(model: onnx.ModelProto, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """The part of a model that some of its outputs depend on."""
    needed, nodes = {each.name for each in outputs}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(_reads(node))
            nodes.append(node)
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    for field, kept in {
        "node": nodes[::-1],
        "output": outputs,
        "input": [each for each in model.graph.input if each.name in needed],
        "initializer": [each for each in model.graph.initializer if each.name in needed],
    }.items():
        cut.graph.ClearField(field)
        getattr(cut.graph, field).extend(kept)
    return cut


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what the bodies of its loops read from around them."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (*attribute.g.node, *(node for graph in attribute.graphs for node in graph.node)):
            yield from _reads(inner)
