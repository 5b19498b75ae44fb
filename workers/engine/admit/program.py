"""What admission of a program hands on: plain values, every one of them checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, Union

from workers.engine.signature import Signature


@dataclass(frozen=True)
class Axis:
    """An axis of variable length: multiples of `multiple` between `minimum` and `maximum` (None: unbounded).

    `example` is its length in the example that the program was exported with.
    """

    symbol: str
    minimum: int
    maximum: int | None
    example: int
    multiple: int = 1


@dataclass(frozen=True)
class ProgramInput:
    """A tensor that the caller gives: `value` is its name in the graph, `dtype` a torch dtype's name.

    `name` says where in the call it stands: `batch.ids`.
    """

    name: str
    value: str
    dtype: str
    shape: tuple[int | Axis, ...]


@dataclass(frozen=True)
class Payload:
    """A tensor stored raw: a strided view, in elements, of the entry's bytes, which hold nothing else."""

    entry: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool


@dataclass(frozen=True)
class State:
    """A parameter, buffer or constant: `name` is its value in the graph, `path` its attribute path."""

    name: str
    path: str
    kind: Literal["parameter", "buffer", "constant"]
    persistent: bool
    payload: Payload


@dataclass(frozen=True)
class Reference:
    """A value of the graph: an input, a state, or a result of an earlier call."""

    name: str


@dataclass(frozen=True)
class TorchConstant:
    """A constant of torch, such as `float32` or `channels_last`."""

    kind: Literal["dtype", "memory_format", "layout", "device"]
    name: str


@dataclass(frozen=True)
class Subgraph:
    """The body of a scan or a branch of a cond: calls over its own inputs and nothing else."""

    inputs: tuple[str, ...]
    calls: tuple["Call", ...]
    outputs: tuple[str, ...]


Argument: TypeAlias = Union[  # noqa: UP007  # `|` cannot hold a forward reference
    bool, int, float, str, Reference, TorchConstant, Subgraph, tuple["Argument", ...], None
]


@dataclass(frozen=True)
class Call:
    """One operator call. `results` names what it returns; `unpacked` where that is a sequence of results."""

    operator: str
    arguments: tuple[Argument, ...]
    keywords: Mapping[str, Argument]
    results: tuple[str | None, ...]
    unpacked: bool

    @property
    def references(self) -> set[str]:
        """The names of the values it reads."""
        return names_in((*self.arguments, *self.keywords.values()))


@dataclass(frozen=True)
class Program:
    """A graph of operator calls in order, over inputs and states.

    `signature` is None where the inputs are positional, and the outputs one tensor or a tuple of them.
    """

    inputs: tuple[ProgramInput, ...]
    states: tuple[State, ...]
    calls: tuple[Call, ...]
    outputs: tuple[str, ...]
    signature: Signature | None = None


def names_in(argument: Argument) -> set[str]:
    """The names of the values that an argument refers to."""
    if isinstance(argument, Reference):
        return {argument.name}
    if isinstance(argument, tuple):
        return set().union(*map(names_in, argument))
    return set()
