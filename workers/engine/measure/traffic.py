"""The bytes that a network moves, as its calls read and write them: counted on the graph, not measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.fx.node import Target
from torch.utils._pytree import tree_leaves

from workers.engine.graph.network import Network
from workers.engine.graph.recurrent import RECURRENT, bind
from workers.engine.graph.shapes import ShapeInterpreter

_LOOKUPS = frozenset({"embedding", "gather", "index", "index_select", "take", "take_along_dim"})


@dataclass(frozen=True)
class Traffic:
    """Bytes of one inference: of what the network stores, and of everything else."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.activations


def count(network: Network) -> Traffic:
    """Count the bytes that every call of the graph reads and writes, for batch 1.

    Batch and other variable axes are those of `cost.count`. A call reads each of its tensors once and writes
    its results once, in the precision that they have. A tensor counts as often as calls read it: nothing is
    assumed to be fused, or to stay in a cache from one call to the next, as some of it will. What
    repeats its values (an expanded axis) counts once.

    - `weights` are what the network stores: parameters, buffers and constants, and views of them.
    - Views, and calls that return what they were given, move nothing.
    - A lookup reads as much of its table as it returns.
    - Of a choice (cond) the busier way counts.
    - What runs at every step of a loop counts at every step. A recurrent operator reads its input weights
      once, its other weights at every step; the states between its steps are not counted.

    Raises `EngineError` (`shapes_unknown`) where a shape depends on the values of the input.
    """
    counter = _Counter(network)
    counter.follow()
    return Traffic(counter.weights, counter.activations)


class _Counter(ShapeInterpreter):
    """Adds up, call by call, what each moves."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.weights = self.activations = 0
        self._stored: dict[int, Tensor] = {}  # held, so that nothing else is given their memory

    def fetch_attr(self, target: str) -> Any:
        """A stored tensor's shape, known as a weight from here on."""
        value = super().fetch_attr(target)
        if isinstance(value, Tensor):
            self._stored[_memory(value)] = value
        return value

    def call_function(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator. Loops come back here with the calls of their body."""
        results = super().call_function(target, args, kwargs)
        if isinstance(target, OpOverload):
            self._charge(target, args, kwargs, _tensors(results))
        return results

    def cond(
        self, _: Any, yes: GraphModule, no: GraphModule, operands: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """A choice moves what the busier of its ways does."""
        before, moved = (self.weights, self.activations), []
        for body in (yes, no):
            self.weights, self.activations = before
            results = self.way(body, operands)
            moved.append((self.weights, self.activations))
        self.weights, self.activations = max(moved, key=sum)
        return results

    def _charge(
        self,
        target: OpOverload[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        results: Sequence[Tensor],
    ) -> None:
        read = _tensors((args, kwargs))
        given = {_memory(tensor) for tensor in read}
        made = [tensor for tensor in results if target._schema.is_mutable or _memory(tensor) not in given]
        if not made:
            return
        if target in RECURRENT:
            self._recurrent(bind(target, args, kwargs))
        elif str(target.overloadpacket).removeprefix("aten.") in _LOOKUPS:
            self._move(read[0], min(_bytes(read[0]), sum(map(_bytes, made))))
            read = read[1:]
        for tensor in (*read, *made):
            self._move(tensor, _bytes(tensor))

    def _recurrent(self, bound: Mapping[str, Any]) -> None:
        """The weights of a recurrent operator at the steps that follow its first."""
        steps = bound["input"].shape[1 if bound["batch_first"] else 0]
        stacks = bound["num_layers"] * (2 if bound["bidirectional"] else 1)
        each = len(bound["params"]) // stacks  # input weights, hidden weights, then biases and a projection
        for place, weight in enumerate(bound["params"]):
            if place % each:
                self._move(weight, (steps - 1) * _bytes(weight))

    def _move(self, tensor: Tensor, size: int) -> None:
        if _memory(tensor) in self._stored:
            self.weights += self.steps * size
        else:
            self.activations += self.steps * size


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    """What a tensor and its views have in common."""
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    """Of the values; those that lie in the same place count once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
