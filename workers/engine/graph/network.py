"""The working form: an ATen graph with its inputs described well enough to trace it again."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from workers.engine.graph.batch import batch_axis
from workers.engine.graph.recurrent import kept_whole
from workers.engine.signature import Signature

T = TypeVar("T")


@dataclass(frozen=True)
class Dimension:
    """An axis whose length is any multiple of `multiple` between `minimum` and `maximum` (None: unbounded).

    `example` is its length in the example that the network came with.
    """

    symbol: str
    minimum: int = 1
    maximum: int | None = None
    example: int = 1
    multiple: int = 1

    def __str__(self) -> str:
        return self.symbol if self.multiple == 1 else f"{self.multiple}*{self.symbol}"

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Between how many multiples it is."""
        most = None if self.maximum is None else self.maximum // self.multiple
        return max(1, -(-self.minimum // self.multiple)), most

    def near(self, length: int) -> int:
        """The length that it may have and that is near to `length`: not shorter, where there is one."""
        (least, most), wanted = self.bounds, -(-length // self.multiple)
        return self.multiple * max(least, wanted if most is None else min(wanted, most))


_MASK_NAMES = frozenset({"mask", "attention_mask", "input_mask"})


@dataclass(frozen=True)
class Input:
    """One tensor input: its name, dtype and shape, whose variable axes are `Dimension`s.

    Of nested inputs the name is the way to them, joined by dots. `row_axis` is where the rows of a data set
    go: not first in states whose layers come first. An input without such an axis has None, and is the same
    for all rows.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | Dimension, ...]
    row_axis: int | None = 0

    @property
    def is_mask(self) -> bool:
        """Whether the input says which positions are real: called like an attention mask, with two axes."""
        return self.name.rpartition(".")[2] in _MASK_NAMES and len(self.shape) == 2

    def of_rows(self, rows: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
        """What the network takes for rows of a data set, which come first in it."""
        values = torch.as_tensor(np.ascontiguousarray(rows)).to(device, self.dtype)
        return values[0] if self.row_axis is None else values.movedim(0, self.row_axis).contiguous()

    def as_rows(self, values: Tensor, count: int) -> NDArray[Any]:
        """The `count` rows of a data set for which the network takes `values`."""
        if self.row_axis is None:
            return values.expand(count, *values.shape).contiguous().numpy()
        return values.movedim(self.row_axis, 0).contiguous().numpy()


@dataclass(frozen=True)
class Network:
    """An unlifted ATen `GraphModule` in evaluation mode, and the inputs it takes in order.

    `module` is edited in place by `graph.surgery` only; everybody else treats it as read-only and takes a
    `copy()` before training. Parameters and buffers are attributes of the module under their original names.
    `batch_axis` is where inputs have their batch: 1 where they have time before it. `signature` is how the
    user calls the network, where that is not by tensors in a row, as it is called here.
    """

    module: GraphModule
    inputs: tuple[Input, ...]
    batch_axis: int = 0
    signature: Signature | None = None
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, *tensors: Tensor) -> Any:
        """Run the graph on tensors in the order of `inputs`."""
        return self.module(*tensors)

    def copy(self) -> "Network":
        """A deep copy that shares no storage."""
        return replace(self, module=copy.deepcopy(self.module))

    def computed(self, what: str, compute: Callable[[], T]) -> T:
        """What follows from the graph and the shapes in it alone: computed once for all copies that have the
        same nodes, which an edit has not, and tensors of the same shapes."""
        key = (what, *(_identity(self.module, node) for node in self.module.graph.nodes))
        if key not in self._known:
            self._known[key] = compute()
        return cast("T", self._known[key])

    @property
    def batch_symbol(self) -> str | None:
        """The symbol of the batch: the first input's variable batch axis; None where none varies."""
        length = self._length(self.batch_axis)
        return length.symbol if isinstance(length, Dimension) else None

    def batch_size(self, wanted: int, axis: int = 0) -> int:
        """The length of an axis nearest to `wanted` that the network takes: its own where it was exported
        with one. The first axis is that of a data set's rows."""
        length = self._length(axis)
        return length.near(wanted) if isinstance(length, Dimension) else length

    def rows_in(self, tensors: Sequence[Tensor]) -> int:
        """How many rows of a data set inputs are made of."""
        places = zip(tensors, self.inputs, strict=True)
        return next(each.shape[spec.row_axis] for each, spec in places if spec.row_axis is not None)

    def batch_in(self, tensors: Sequence[Tensor]) -> int:
        """How large the batch of inputs is."""
        return tensors[0].shape[1] if self.batch_axis else self.rows_in(tensors)

    def _length(self, axis: int) -> int | Dimension:
        """Of that axis in the inputs that have it: the first that varies, if any does."""
        if axis == 0:
            return _row_length(self.inputs)
        lengths = [spec.shape[axis] for spec in self.inputs if len(spec.shape) > axis]
        return next((length for length in lengths if isinstance(length, Dimension)), lengths[0])

    def sizes(self, batch: int = 1) -> tuple[tuple[int, ...], ...]:
        """The shape of every input for that batch; other variable axes have their example's length."""
        lengths = {self.batch_symbol: batch}
        return tuple(
            tuple(
                axis if isinstance(axis, int) else lengths.get(axis.symbol, axis.near(axis.example))
                for axis in spec.shape
            )
            for spec in self.inputs
        )

    def examples(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Inputs for that batch on the CPU: normal noise, zeros where not floating, ones for a mask."""
        return tuple(_made_up(spec, size) for spec, size in zip(self.inputs, self.sizes(batch), strict=True))


def trace(module: nn.Module, inputs: Sequence[Input], signature: Signature | None = None) -> Network:
    """Trace `module`, which takes tensors in a row, with torch.export and unlift it.

    Raises whatever torch.export raises: callers that trace foreign graphs translate it.
    """
    program = export(module, inputs)
    module = program.module(check_guards=False)
    return Network(module, _with_rows(inputs), batch_axis(module), signature)


def export(module: nn.Module, inputs: Sequence[Input]) -> ExportedProgram:
    """torch.export with the variable axes of `inputs` kept variable.

    Distinct lengths of three and more stand in for variable axes: torch.export specialises axes of one, and
    merges axes that are equal by accident.
    """
    return exported(module, examples(inputs), {}, dynamic_shapes(inputs))


def exported(
    module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], shapes: Any
) -> ExportedProgram:
    """torch.export of a call: `shapes` are its variable axes. Recurrent operators stay whole."""
    # A choice between graphs is compiled on the way, and what was compiled for one network narrows the next.
    torch.compiler.reset()
    with kept_whole():
        return torch.export.export(module, arguments, keywords, dynamic_shapes=shapes)


def dynamic_shapes(inputs: Sequence[Input]) -> tuple[dict[int, Dim] | None, ...]:
    """The variable axes of every input, as torch.export takes them."""
    dims = _dims(inputs)
    return tuple(
        {axis: dims[size.symbol][0] for axis, size in enumerate(spec.shape) if isinstance(size, Dimension)}
        or None
        for spec in inputs
    )


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


def _identity(module: GraphModule, node: Node) -> tuple[str, torch.Size | None]:
    value = attrgetter(str(node.target))(module) if node.op == "get_attr" else None
    return node.name, value.shape if isinstance(value, Tensor) else None


def _row_length(inputs: Sequence[Input]) -> int | Dimension:
    """How many rows there are: the length of the first axis that varies and that all inputs have somewhere,
    or else of one that some have; where none varies, the same of fixed ones."""
    first = [spec.shape[0] for spec in inputs if spec.shape] or [1]
    lengths = [length for length in first if isinstance(length, Dimension)] or first
    shared = (length for length in lengths if all(length in spec.shape for spec in inputs if spec.shape))
    return next(shared, lengths[0])


def _with_rows(inputs: Sequence[Input]) -> tuple[Input, ...]:
    """The inputs with where they have rows: their first axis that is as long as there are rows."""
    length = _row_length(inputs)
    return tuple(
        replace(spec, row_axis=spec.shape.index(length) if length in spec.shape else None) for spec in inputs
    )


def _made_up(spec: Input, size: tuple[int, ...]) -> Tensor:
    if spec.is_mask:
        return torch.ones(size, dtype=spec.dtype)
    return (torch.randn if spec.dtype.is_floating_point else torch.zeros)(size, dtype=spec.dtype)


def _dims(inputs: Sequence[Input]) -> dict[str, tuple[Dim, int]]:
    dims: dict[str, tuple[Dim, int]] = {}
    for axis in (size for spec in inputs for size in spec.shape if isinstance(size, Dimension)):
        if axis.symbol not in dims:
            least, most = axis.bounds
            dim = Dim(axis.symbol, min=least, max=most)
            product = dim if axis.multiple == 1 else axis.multiple * dim
            dims[axis.symbol] = (product, axis.near(axis.multiple * (3 + 2 * len(dims))))
    return dims
