"""The state of a training on disk: whole or not there, and taken up again by the same training alone."""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.engine.data import Examples
from workers.engine.graph.network import Network
from workers.engine.rows import parts


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the last state of one training. `about` says which: another's is not read. `saved` is
    told of every save."""

    path: Path
    about: str
    saved: Callable[[], None] = lambda: None

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`, of tensors, numbers and texts, in the place of the last one; a kill at any moment
        leaves one of the two."""
        unfinished = self.path.with_name(f"{self.path.name}.new")
        torch.save({"about": self.about, "state": state}, unfinished)
        unfinished.replace(self.path)
        self.saved()

    def load(self) -> dict[str, Any] | None:
        """The last state, on the CPU; None where there is none, where it is damaged or another training's."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.testzip() is not None:  # torch does not look at the checksums it writes
                    return None
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            state: dict[str, Any] = found["state"]
            return state if found["about"] == self.about else None
        except Exception:  # a damaged file makes zipfile, pickle and torch raise whatever they like
            return None

    def remove(self) -> None:
        """Delete what was saved."""
        for path in (self.path, self.path.with_name(f"{self.path.name}.new")):
            path.unlink(missing_ok=True)


def fingerprint(networks: Iterable[Network], examples: Iterable[Examples], *said: str) -> str:
    """A SHA-256 over everything that decides how a training goes: the weights of networks, the rows, and what
    else is said about it."""
    digest = hashlib.sha256(repr(said).encode())
    for network in networks:
        digest.update(network.module.code.encode())
        for path, tensor in tensors(network).items():
            digest.update(path.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    arrays = [array for each in examples for array in (*each.inputs, each.target) if array is not None]
    for index, array in enumerate(arrays):
        digest.update(f"{index}: {array.dtype} {array.shape}".encode())
        for part in parts(array):
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def tensors(network: Network) -> dict[str, Tensor]:
    """The parameters and buffers by path: what training changes."""
    return dict([*network.module.named_parameters(), *network.module.named_buffers()])


def fill(network: Network, values: Mapping[str, Tensor]) -> None:
    """Put values, by path, in the place of those parameters and buffers, in place."""
    with torch.no_grad():
        for path, tensor in tensors(network).items():
            tensor.copy_(values[path])
