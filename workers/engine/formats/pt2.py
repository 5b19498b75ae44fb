"""torch.export archives: our own reader, and a writer whose files stock torch opens."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from workers.engine.admit import pt2 as admission
from workers.engine.admit.archive import Archive
from workers.engine.admit.program import Axis, Payload, Program, ProgramInput
from workers.engine.errors import Rejected
from workers.engine.formats.interpreter import interpreter
from workers.engine.formats.reason import reason
from workers.engine.graph.called import export_as_called
from workers.engine.graph.network import Dimension, Input, Network, trace

# Where a graph was written down tells about the machine, and no reader needs it.
_PROVENANCE = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def read(path: Path) -> Network:
    """The network in an uploaded `.pt2`, in evaluation mode, on the CPU.

    The file is admitted, its tensors are read from raw bytes, its operator calls interpreted and traced
    anew: torch.export.load is never called, and nothing is unpickled or evaluated. Parameters and buffers
    keep their paths and ties, inputs their names, variable axes their bounds. The network takes its tensors
    in a row and returns one tensor or a flat tuple; how the user calls it is its `signature`. Large tensors
    stay in the file until they are written to: it may be deleted, but not changed, while they are in use.
    Raises `Rejected`, never with a path of the server.
    """
    with admission.admit(path) as (program, archive):
        try:
            module = interpreter(program, _tensors(program, archive))
            return trace(module, [_input(spec) for spec in program.inputs], program.signature)
        except (Rejected, OSError, MemoryError):
            raise
        except Exception as error:  # whatever torch raises on a graph that makes no sense to it
            raise Rejected(
                "cannot_trace",
                f"Torch cannot run the model: {reason(error)}",
                hint="Check that the model runs after torch.export.load, and export it again.",
            ) from error


def write(network: Network, path: Path) -> None:
    """Write `network` as a `.pt2` that torch.export.load opens without this package, and that is called by
    the network's signature.

    The file holds neither example inputs nor any trace of where it was made; equal networks give equal bytes
    under equal file names. Tensors that are parts of larger storages are stored alone. `network` is not
    changed.
    """
    program = export_as_called(network)
    program.example_inputs = None
    _forget_provenance(program)
    _compact(program)
    path.unlink(missing_ok=True)  # and not written over: networks that were read from it may be in use
    torch.export.save(program, path)


def _tensors(program: Program, archive: Archive) -> dict[str, Tensor]:
    """The states by path. What is stored once is loaded once: ties are one object, views share memory."""
    storages: dict[str, Tensor] = {}
    loaded: dict[tuple[Payload, str], Tensor] = {}
    for state in program.states:
        payload = state.payload
        if payload.entry not in storages:
            storages[payload.entry] = _storage(payload.entry, archive)
        key = (payload, state.kind)
        if key not in loaded:
            loaded[key] = _view(storages[payload.entry], payload, state.kind == "parameter")
    return {state.path: loaded[state.payload, state.kind] for state in program.states}


def _storage(entry: str, archive: Archive) -> Tensor:
    if (mapped := archive.mapped(entry)) is not None:
        return torch.frombuffer(mapped, dtype=torch.uint8)
    storage = torch.empty(archive.size(entry), dtype=torch.uint8)
    archive.read_into(entry, [storage.numpy().data])
    return storage


def _view(storage: Tensor, payload: Payload, parameter: bool) -> Tensor:
    elements = storage.view(getattr(torch, payload.dtype))
    tensor = elements.as_strided(payload.shape, payload.strides, payload.offset)
    return nn.Parameter(tensor, requires_grad=payload.requires_grad) if parameter else tensor


def _input(spec: ProgramInput) -> Input:
    axes = tuple(
        Dimension(axis.symbol, axis.minimum, axis.maximum, axis.example, axis.multiple)
        if isinstance(axis, Axis)
        else axis
        for axis in spec.shape
    )
    return Input(spec.name, getattr(torch, spec.dtype), axes)


def _forget_provenance(program: ExportedProgram) -> None:
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            for key in _PROVENANCE:
                node.meta.pop(key, None)


def _compact(program: ExportedProgram) -> None:
    """Clone tensors whose storage holds more than they show: it would be written whole."""
    for table in (program.state_dict, program.constants):
        compact: dict[int, Tensor] = {}
        for path, tensor in table.items():
            if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
                table[path] = compact.setdefault(id(tensor), _clone(tensor))


def _clone(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    return (
        nn.Parameter(copy, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
    )
