"""The working form: an ATen graph with its inputs described well enough to trace it again."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from workers.engine.graph.recurrent import kept_whole


@dataclass(frozen=True)
class Dimension:
    """An axis whose length may vary between `minimum` and `maximum` (None: unbounded).

    `example` is its length in the example that the network came with.
    """

    symbol: str
    minimum: int = 1
    maximum: int | None = None
    example: int = 1


_MASK_NAMES = frozenset({"mask", "attention_mask", "input_mask"})


@dataclass(frozen=True)
class Input:
    """One tensor input: its name, dtype and shape, whose variable axes are `Dimension`s."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | Dimension, ...]

    @property
    def is_mask(self) -> bool:
        """Whether the input says which positions are real: called like an attention mask, with two axes."""
        return self.name in _MASK_NAMES and len(self.shape) == 2


@dataclass(frozen=True)
class Network:
    """An unlifted ATen `GraphModule` in evaluation mode, and the inputs it takes in order.

    `module` is edited in place by `graph.surgery` only; everybody else treats it as read-only and takes a
    `copy()` before training. Parameters and buffers are attributes of the module under their original names.
    """

    module: GraphModule
    inputs: tuple[Input, ...]

    def __call__(self, *tensors: Tensor) -> Any:
        """Run the graph on tensors in the order of `inputs`."""
        return self.module(*tensors)

    def copy(self) -> "Network":
        """A deep copy that shares no storage."""
        return Network(copy.deepcopy(self.module), self.inputs)

    @property
    def batch_symbol(self) -> str | None:
        """The symbol of the batch: the first input's variable first axis; None where none varies."""
        firsts = (spec.shape[0] for spec in self.inputs if spec.shape)
        return next((axis.symbol for axis in firsts if isinstance(axis, Dimension)), None)

    def batch_size(self, wanted: int) -> int:
        """The batch nearest to `wanted` that the network takes: its own where it was exported with one."""
        firsts = [spec.shape[0] for spec in self.inputs if spec.shape]
        axis = next((axis for axis in firsts if isinstance(axis, Dimension)), firsts[0])
        return _bounded(axis, wanted) if isinstance(axis, Dimension) else axis

    def sizes(self, batch: int = 1) -> tuple[tuple[int, ...], ...]:
        """The shape of every input for that batch; other variable axes have their example's length."""
        lengths = {self.batch_symbol: batch}
        return tuple(
            tuple(
                axis if isinstance(axis, int) else lengths.get(axis.symbol, axis.example)
                for axis in spec.shape
            )
            for spec in self.inputs
        )

    def examples(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Inputs for that batch on the CPU: normal noise, zeros where not floating, ones for a mask."""
        return tuple(_made_up(spec, size) for spec, size in zip(self.inputs, self.sizes(batch), strict=True))


def trace(module: nn.Module, inputs: Sequence[Input]) -> Network:
    """Trace `module` with torch.export and unlift it.

    Raises whatever torch.export raises: callers that trace foreign graphs translate it.
    """
    program = export(module, inputs)
    return Network(program.module(check_guards=False), tuple(inputs))


def export(module: nn.Module, inputs: Sequence[Input]) -> ExportedProgram:
    """torch.export with the variable axes of `inputs` kept variable.

    Distinct lengths of three and more stand in for variable axes: torch.export specialises axes of one, and
    merges axes that are equal by accident.
    """
    dims = _dims(inputs)
    shapes = tuple(
        {axis: dims[size.symbol][0] for axis, size in enumerate(spec.shape) if isinstance(size, Dimension)}
        or None
        for spec in inputs
    )
    with kept_whole():
        return torch.export.export(module, examples(inputs), dynamic_shapes=shapes)


def examples(inputs: Sequence[Input]) -> tuple[Tensor, ...]:
    """Zeros as the trace takes them: every variable axis has a length of its own."""
    dims = _dims(inputs)
    return tuple(
        torch.zeros(
            [axis if isinstance(axis, int) else dims[axis.symbol][1] for axis in spec.shape], dtype=spec.dtype
        )
        for spec in inputs
    )


def call_nodes(module: GraphModule) -> list[Node]:
    """The operator calls of a graph in order."""
    return [node for node in module.graph.nodes if node.op == "call_function"]


def _made_up(spec: Input, size: tuple[int, ...]) -> Tensor:
    if spec.is_mask:
        return torch.ones(size, dtype=spec.dtype)
    return (torch.randn if spec.dtype.is_floating_point else torch.zeros)(size, dtype=spec.dtype)


def _bounded(axis: Dimension, length: int) -> int:
    return max(axis.minimum, length if axis.maximum is None else min(length, axis.maximum))


def _dims(inputs: Sequence[Input]) -> dict[str, tuple[Dim, int]]:
    dims: dict[str, tuple[Dim, int]] = {}
    for axis in (size for spec in inputs for size in spec.shape if isinstance(size, Dimension)):
        if axis.symbol not in dims:
            dim = Dim(axis.symbol, min=axis.minimum, max=axis.maximum)
            dims[axis.symbol] = (dim, _bounded(axis, 3 + 2 * len(dims)))
    return dims
