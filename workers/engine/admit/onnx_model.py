"""What admission of an ONNX file hands on: plain values, every one of them checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, Union

SEPARATOR = "\x1f"
"""What no name in a file holds, since it cannot be printed."""


@dataclass(frozen=True)
class StoredTensor:
    """A constant: `data` holds its elements in row-major order, little-endian, as many as the shape says."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview = field(compare=False, repr=False)


Attribute: TypeAlias = Union[  # `|` cannot hold a forward reference
    int, float, str, tuple[int, ...], tuple[float, ...], tuple[str, ...], StoredTensor, "Graph"
]


@dataclass(frozen=True)
class Node:
    """One operator call. An input that is left out is "".

    Values are named uniquely over the whole file: those of a subgraph end in
    `SEPARATOR` and the graph's number.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def subgraphs(self) -> Iterator["Graph"]:
        """The graphs among its attributes."""
        return (value for value in self.attributes.values() if isinstance(value, Graph))

    def __str__(self) -> str:
        return f"{self.operator} {self.name or next(filter(None, self.outputs), '')!a}"


@dataclass(frozen=True)
class GraphInput:
    """A tensor from outside: an axis of the shape is a length or the name of a variable one.

    The body of a loop need not tell: its inputs have neither.
    """

    name: str
    dtype: str | None
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class Graph:
    """Operator calls in order, each of values known before."""

    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, StoredTensor]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class OnnxModel:
    """A graph over the operators of one version of the set `ai.onnx`."""

    opset: int
    graph: Graph
