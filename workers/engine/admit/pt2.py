"""Admission of torch.export archives (`.pt2`): entries, payloads, signature."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from dataclasses import field as field_
from pathlib import Path
from typing import Any, Literal

from workers.engine.admit import calls, pickled, tensors
from workers.engine.admit.archive import Archive, Rules, open_archive, show
from workers.engine.admit.document import field, load, malformed, name_of, union
from workers.engine.admit.dtypes import BYTES, dtype
from workers.engine.admit.program import Payload, Program, ProgramInput, State
from workers.engine.admit.signature import signature
from workers.engine.errors import Rejected
from workers.engine.signature import Nested, Place

SCHEMAS = (7, 8)
MAX_JSON_BYTES = 64 << 20
MAX_EXPANDED_BYTES = 1 << 30

_FOLDERS = {"data/weights": "weights", "data/constants": "constants"}
_KNOWN_ENTRY = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json|model\.pt)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json|model\.pt)"
    r"|models/model\.json"
    r"|data/sample_inputs/model\.pt"  # a pickle in every archive torch writes: never read
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|\.format_version|\.storage_alignment",
    re.ASCII,
)
# What torch up to 2.7 wrote, in no folder; the example inputs are never read.
_OLD_PROGRAM = "serialized_exported_program.json"
_OLD_PICKLES = {"data/weights": "serialized_state_dict.pt", "data/constants": "serialized_constants.pt"}
_OLD_ENTRIES = {_OLD_PROGRAM, *_OLD_PICKLES.values(), "serialized_example_inputs.pt", "version"}
_NATIVE_ENTRY = re.compile(r"data/aotinductor/.*|.*\.(so|dll|dylib|o|a)(\.\d+)*", re.IGNORECASE)


@contextmanager
def admit(path: Path) -> Iterator[tuple[Program, Archive]]:
    """The program in a `.pt2`, and the archive to read its payloads from.

    Nothing is unpickled, evaluated or written, and no tensor is allocated. Raises `Rejected`.
    """
    with open_archive(path, Rules()) as packed, ExitStack() as opened:
        layout, archive = _layout(packed), packed
        for entry in layout.pickles.values():
            archive = opened.enter_context(archive.unfolded(entry, Rules()))
        document = load(archive.read(layout.program, MAX_JSON_BYTES), "model.json")
        yield _program(document, _payloads(archive, layout)), archive


@dataclass(frozen=True)
class _Layout:
    """Where an archive has its program, and its tensors: raw in a folder, or by what torch.save wrote into an
    entry, as until torch 2.8."""

    program: str
    root: str = ""
    pickles: Mapping[str, str] = field_(default_factory=dict)


def _layout(archive: Archive) -> _Layout:
    names = set(archive.names)
    if _OLD_PROGRAM in names:
        if unknown := names - _OLD_ENTRIES:
            raise _unknown(min(unknown))
        return _Layout(_OLD_PROGRAM, pickles=_OLD_PICKLES)
    root = _root(archive)
    _check_header(archive, root)
    pickles = {folder: f"{root}/{folder}/model.pt" for folder in _FOLDERS}
    held = {folder: entry for folder, entry in pickles.items() if entry in names}
    for folder, entry in held.items():
        if any(name.startswith(f"{root}/{folder}/") for name in names - {entry}):
            raise _unknown(entry.removeprefix(f"{root}/"))  # two readers would see two networks
    return _Layout(f"{root}/models/model.json", root, held)


def _root(archive: Archive) -> str:
    """The one folder that holds everything, once every entry in it is known."""
    roots = {name.split("/")[0] for name in archive.names}
    if len(roots) != 1:
        raise Rejected("unknown_entry", "The archive is not a .pt2: its entries do not share one folder.")
    (root,) = roots
    for name in archive.names:
        inner = name.removeprefix(f"{root}/")
        if _NATIVE_ENTRY.fullmatch(inner):
            raise Rejected(
                "native_code",
                f"The archive carries compiled code: {show(inner)}.",
                hint="Save the exported program with torch.export.save, not an AOTInductor package.",
            )
        if not _KNOWN_ENTRY.fullmatch(inner):
            raise _unknown(inner)
    return root


def _unknown(entry: str) -> Rejected:
    return Rejected(
        "unknown_entry",
        f"The archive has an entry that does not belong there: {show(entry)}.",
        hint="Save the exported program with torch.export.save, without extra files.",
    )


def _check_header(archive: Archive, root: str) -> None:
    if archive.read(f"{root}/archive_format", 16).strip() != b"pt2":
        raise malformed("archive_format should be pt2")
    tensors.check_byte_order(archive, root)


def _payloads(archive: Archive, layout: _Layout) -> dict[str, dict[str, Payload]]:
    """The payloads by folder and attribute path, their sizes checked against the entries."""
    found = {
        folder: pickled.payloads(archive, layout.pickles[folder])
        if folder in layout.pickles
        else _folder_payloads(archive, layout.root, folder)
        for folder in _FOLDERS
    }
    payloads = [payload for folder in found.values() for payload in folder.values()]
    _check_sizes(payloads, archive)
    return found


def _folder_payloads(archive: Archive, root: str, folder: str) -> dict[str, Payload]:
    table = f"{root}/{folder}/model_{_FOLDERS[folder]}_config.json"
    config = load(archive.read(table, MAX_JSON_BYTES), "a payload table")
    return {
        path: _payload(description, f"{root}/{folder}", path)
        for path, description in field(config, "config", dict).items()
    }


def _payload(description: object, folder: str, path: str) -> Payload:
    if field(description, "use_pickle", bool):
        raise Rejected(
            "pickled_weights",
            f"The tensor {show(path)} is stored as a pickle, which can carry code.",
            hint="Use plain tensors without subclasses or custom objects, and export again.",
        )
    entry = name_of(field(description, "path_name", str), "the name of a payload")
    meta = field(description, "tensor_meta", dict)
    tensors.check_placement(meta, path)
    return Payload(
        entry=f"{folder}/{entry}",
        dtype=dtype(field(meta, "dtype", int)),
        shape=tensors.lengths(meta, "sizes"),
        strides=tensors.lengths(meta, "strides"),
        offset=tensors.length_of(field(meta, "storage_offset", dict)),
        requires_grad=field(meta, "requires_grad", bool),
    )


def _check_sizes(payloads: list[Payload], archive: Archive) -> None:
    """Every entry holds its tensors' bytes, no more and no less; nothing unfolds far beyond its bytes."""
    needed: dict[str, int] = {}
    expanded = 0
    for payload in payloads:
        if len(payload.shape) != len(payload.strides) or len(payload.shape) > tensors.MAX_AXES:
            raise malformed("a tensor's sizes and strides should agree in number, and be few")
        needed[payload.entry] = max(needed.get(payload.entry, 0), _extent(payload))
        expanded += math.prod(payload.shape) * BYTES[payload.dtype]
    for entry, size in needed.items():
        if archive.size(entry) != size:
            raise Rejected(
                "payload_size",
                f"The entry {show(entry)} holds {archive.size(entry)} bytes where its tensors take {size}.",
                hint="Clone tensors that are slices of larger ones before exporting.",
            )
    if expanded > sum(needed.values()) + MAX_EXPANDED_BYTES:
        raise Rejected("payload_size", f"The stored tensors would unfold to {expanded} bytes.")


def _extent(payload: Payload) -> int:
    """How many bytes of its entry a tensor reaches."""
    if 0 in payload.shape:
        return 0
    last = sum((length - 1) * stride for length, stride in zip(payload.shape, payload.strides, strict=True))
    return (payload.offset + last + 1) * BYTES[payload.dtype]


def _program(document: dict[str, Any], payloads: dict[str, dict[str, Payload]]) -> Program:
    major = field(field(document, "schema_version", dict), "major", int)
    if major not in SCHEMAS:
        raise Rejected(
            "unsupported_version",
            f"The file was written by a release of torch whose format ({major}) is not supported.",
            hint="Export the model again with torch 2.5 to 2.13.",
        )
    module = field(document, "graph_module", dict)
    graph = field(module, "graph", dict)
    inputs, arguments, states = _taken(module, field(document, "range_constraints", dict), payloads)
    known: set[str] = set()
    calls.claim([spec.value for spec in inputs] + [state.name for state in states], known)
    steps = calls.parse(field(graph, "nodes", list), known)
    outputs, results = _returned(field(field(module, "signature", dict), "output_specs", list), known)
    call = signature(module, arguments, results, [spec.value for spec in inputs])
    if call is not None:
        inputs = [replace(spec, name=name) for spec, name in zip(inputs, call.input_names, strict=True)]
    return Program(tuple(inputs), tuple(states), steps, tuple(outputs), call)


def _taken(
    module: dict[str, Any], ranges: dict[str, Any], payloads: dict[str, dict[str, Payload]]
) -> tuple[list[ProgramInput], list[Nested], list[State]]:
    """The inputs, the arguments in order (places of inputs, constants), and the states."""
    described = field(field(module, "graph", dict), "tensor_values", dict)
    inputs: list[ProgramInput] = []
    arguments: list[Nested] = []
    states: list[State] = []
    for spec in field(field(module, "signature", dict), "input_specs", list):
        kind, value = union(spec)
        if kind == "user_input":
            arguments.append(Place(len(inputs)))
            inputs.append(tensors.input_of(value, described, ranges))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            states.append(_state(kind, value, payloads))
        elif kind == "constant_input":
            arguments.append(calls.constant(field(value, "value", dict)))
        else:
            raise Rejected("unsupported_input", f"The model takes an input of the kind {show(kind)}.")
    if not inputs:
        raise Rejected("unsupported_input", "The model takes no tensor.")
    tensors.check_independent(inputs)
    tensors.check_examples(inputs)
    return inputs, arguments, states


def _state(kind: str, value: object, payloads: dict[str, dict[str, Payload]]) -> State:
    path = _attribute_path(field(value, f"{kind}_name", str))
    persistent = kind == "parameter" or (kind == "buffer" and field(value, "persistent", bool))
    folder = payloads["data/weights" if persistent else "data/constants"]
    # A buffer that is not persistent may still be listed with the weights where it shares their storage.
    payload = folder.get(path) or payloads["data/weights"].get(path)
    if payload is None:
        raise malformed(f"there is no payload for {show(path)}")
    kinds: dict[str, Literal["parameter", "buffer", "constant"]] = {
        "parameter": "parameter",
        "buffer": "buffer",
        "tensor_constant": "constant",
    }
    return State(_argument_name(value), path, kinds[kind], persistent, payload)


def _attribute_path(path: str) -> str:
    """A dotted path of identifiers and indices, such as `layers.3.weight`."""
    if len(path) > 1000:
        raise Rejected("hostile_name", f"{show(path)} is too long for the name of a tensor.")
    for part in path.split("."):
        if not (part.isascii() and part.isdigit()):
            calls.identifier(part, "a part of a tensor's name")
        if part.startswith("__"):
            raise Rejected("hostile_name", f"{show(path)} is not accepted as the name of a tensor.")
    return path


def _argument_name(value: object) -> str:
    return calls.identifier(field(field(value, "arg", dict), "name", str), "the name of a value")


def _returned(specs: list[Any], known: set[str]) -> tuple[list[str], list[Nested]]:
    """The values that are returned, and the results in order: their places, and None."""
    outputs: list[str] = []
    results: list[Nested] = []
    for spec in specs:
        kind, value = union(spec)
        if kind != "user_output":
            raise calls.mutates(kind)
        tag, argument = union(field(value, "arg", dict))
        if tag not in ("as_none", "as_tensor"):
            raise Rejected("unsupported_output", "The model returns something that is not a tensor.")
        results.append(None if tag == "as_none" else Place(len(outputs)))
        if tag == "as_tensor":
            outputs.append(calls.known_name(argument, known))
    if not outputs:
        raise Rejected("unsupported_output", "The model returns no tensor.")
    return outputs, results
