"""Archives of `.pt2` as older releases of torch laid them out: their weights are what torch.save writes."""

import io
import json
from typing import Any

import torch
from torch.export import ExportedProgram

from tests.workers.engine.hostile import Entries, unpack
from tests.workers.engine.pt2_forgeries import MODEL

STATES = "serialized_state_dict.pt"
"""Where torch up to 2.7 put the weights."""


def saved(state: object, **options: Any) -> bytes:
    """What torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def as_torch_2_8(entries: Entries, program: ExportedProgram) -> Entries:
    """Today's folders, but one pickle for all weights and one for all constants."""
    [root] = {name.split("/")[0] for name in entries}
    folders = tuple(f"{root}/data/{kind}/" for kind in ("weights", "constants"))
    kept = {name: data for name, data in entries.items() if not name.startswith(folders)}
    return kept | {
        f"{root}/data/weights/model.pt": saved(program.state_dict),
        f"{root}/data/constants/model.pt": saved(program.constants),
    }


def as_torch_2_5(entries: Entries, program: ExportedProgram) -> Entries:
    """The program and three pickles beside each other, in no folder; nodes do not say which arguments are
    given by name."""
    [name] = (name for name in entries if name.endswith(MODEL))
    document = json.loads(entries[name])
    document["schema_version"] = {"major": 7, "minor": 3}
    _forget_kinds(document)
    return {
        "serialized_exported_program.json": json.dumps(document).encode(),
        STATES: saved(program.state_dict),
        "serialized_constants.pt": saved(program.constants),
        "serialized_example_inputs.pt": b"never read",
        "version": b"7.3",
    }


def weights_of(entries: Entries) -> Entries:
    """The entries of the weights of an archive of torch 2.5."""
    return unpack(io.BytesIO(entries[STATES]))


def _forget_kinds(value: Any) -> None:
    if isinstance(value, dict):
        if "arg" in value and "name" in value:
            value.pop("kind", None)
        for part in value.values():
            _forget_kinds(part)
    elif isinstance(value, list):
        for part in value:
            _forget_kinds(part)


LAYOUTS = {"torch 2.8": as_torch_2_8, "torch 2.5": as_torch_2_5}
