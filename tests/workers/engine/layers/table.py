"""The table of docs/methods.md: which layers may take which methods, as a user reads it."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

from app.methods.catalogue import LAYERS
from workers.engine.layers.base import Layer
from workers.engine.layers.conv.layer import ConvLayer
from workers.engine.layers.embedding import EmbeddingLayer
from workers.engine.layers.recurrent.layer import GateLayer

DOCUMENT = (Path(__file__).parents[4] / "docs" / "methods.md").read_text()


@dataclass(frozen=True)
class Row:
    """Kinds of layer, what else must be true of them, and the method that they may then take."""

    kinds: frozenset[str]
    conditions: frozenset[str]
    method: str

    def holds(self, layer: Layer) -> bool:
        """Whether the row is about this layer."""
        return layer.kind in self.kinds and self.conditions <= traits(layer)


def _row(line: str) -> Row:
    first, method = (cell.strip() for cell in line.split("|")[1:3])
    kinds, _, conditions = first.partition(":")
    patterns = re.findall(r"`(\S+)`", kinds)
    return Row(
        frozenset(kind for kind in LAYERS if any(fnmatchcase(kind, pattern) for pattern in patterns)),
        frozenset(conditions.strip().split(", ")) - {""},
        method.strip("`"),
    )


ROWS = [_row(line) for line in DOCUMENT.split("\n## ")[1].splitlines() if line.startswith("| `")]


def documented(layer: Layer) -> set[str]:
    """The methods that the table gives a layer, beside `keep`."""
    return {row.method for row in ROWS if row.holds(layer)} - {"keep"}


def traits(layer: Layer) -> set[str]:
    """The table's conditions that are true of a layer."""
    if isinstance(layer, EmbeddingLayer):
        return {"tied to a head" if layer.tied else "not tied"}
    if isinstance(layer, GateLayer):
        sizes = {len(tensor) / gates for tensor, gates in zip(layer.tensors, layer.gates, strict=True)}
        found = {"gates alike"} if len(sizes) == 1 and sum(layer.gates) > 1 else set()
        return found | ({"feeds one layer"} if len(layer.sites) > 1 else set())
    return _traits_of_a_convolution(layer) if isinstance(layer, ConvLayer) else set()


def _traits_of_a_convolution(layer: ConvLayer) -> set[str]:
    _, _, channels_in, *kernel = layer.shape
    if layer.groups > 1 and channels_in == 1:
        return {"depthwise"}
    found = {"k×k" if prod(kernel) > 1 else "1×1"}
    if min(kernel) > 1:
        found.add("both k over 1")
    if layer.groups == 1:
        found.add("one group")
    return found
