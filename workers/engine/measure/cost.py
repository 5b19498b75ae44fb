"""What a network costs: parameters and multiply-accumulates, counted on the graph without computing it."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tag, Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.fx.node import Target
from torch.utils._python_dispatch import TorchDispatchMode

from workers.engine.graph.network import Network
from workers.engine.graph.recurrent import RECURRENT, bind
from workers.engine.graph.scan import COND, SCAN
from workers.engine.graph.shapes import ShapeInterpreter
from workers.engine.measure.free import FREE

Bound = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """The cost of a network, or of one layer of it.

    `macs_by_node` has the nodes that cost anything, by their name in the graph. `uncounted` names the
    operators for which no formula is known: where it is not empty, `macs` is a lower bound.
    """

    parameters: int
    macs: int
    macs_by_node: dict[str, int]
    uncounted: tuple[str, ...] = ()


def count(network: Network) -> Cost:
    """Count the parameters and, for batch 1, the multiply-accumulates (one is 1).

    The batch is `Network.batch_symbol`; other variable axes have the length of the example. A network whose
    batch is fixed is counted for that batch. Matrix products, convolutions, attention and recurrent layers
    count; elementwise operators, normalisation, pooling, lookups and biases do not. Padding and masked
    positions count like any other. Of a choice (cond) the dearer way counts.
    Raises `EngineError` (`shapes_unknown`) where a shape depends on the values of the input.
    """
    macs, uncounted = network.computed("macs", lambda: _counted(network))
    return Cost(parameters(network), sum(macs.values()), macs, uncounted)


def _counted(network: Network) -> tuple[dict[str, int], tuple[str, ...]]:
    counter = _Counter(network)
    counter.follow()
    macs = {name: value for name, value in counter.macs.items() if value}
    return macs, tuple(sorted(counter.uncounted))


def parameters(network: Network) -> int:
    """The number of parameters; tied ones, which share memory, count once. Buffers are not parameters."""
    distinct = {(weight.data_ptr(), weight.numel()) for weight in network.module.parameters()}
    return sum(size for _, size in distinct)


class _Counter(ShapeInterpreter):
    """Adds up, node by node, what each would cost."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.macs: Counter[str] = Counter()
        self.uncounted: set[str] = set()

    def call_function(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in (SCAN, COND):
            return super().call_function(target, args, kwargs)
        if not isinstance(target, OpOverload):
            self.note(target)
            return super().call_function(target, args, kwargs)
        if target in RECURRENT:
            self.macs[self.current] += self.steps * _recurrent(bind(target, args, kwargs))
            return super().call_function(target, args, kwargs)
        if _known(target):
            return self.charge(target, args, kwargs)
        with _Parts(self):  # an operator without a formula costs what it is made of
            return target(*args, **kwargs)

    def cond(
        self, _: Any, yes: GraphModule, no: GraphModule, operands: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """A choice costs what the dearer of its ways does."""
        before, costs = self.macs[self.current], []
        for body in (yes, no):
            self.macs[self.current] = before
            results = self.way(body, operands)
            costs.append(self.macs[self.current])
        self.macs[self.current] = max(costs)
        return results

    def charge(self, target: OpOverload[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = target(*args, **kwargs)
        formula = _FORMULAS.get(_name(target))
        if formula is not None:
            self.macs[self.current] += self.steps * formula(bind(target, args, kwargs), output)
        elif not _is_free(target):
            self.note(target)
        return output

    def note(self, target: Target) -> None:
        """Remember an operator that may compute something and has no formula; Python's own do not."""
        if getattr(target, "__module__", "") not in (
            "_operator",
            "math",
            "builtins",
            "torch",
            "torch.sym_node",
        ):
            self.uncounted.add(_name(target) if isinstance(target, OpOverload) else str(target))


class _Parts(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Charges the operators that a composite operator runs."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not _known(func) and func._can_decompose():
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return self.counter.charge(func, args, kwargs or {})


def _name(target: OpOverload[..., Any]) -> str:
    return str(target.overloadpacket).removeprefix("aten.")


def _known(target: OpOverload[..., Any]) -> bool:
    return _name(target) in _FORMULAS or _is_free(target)


def _is_free(target: OpOverload[..., Any]) -> bool:
    tags = {Tag.pointwise, Tag.reduction, Tag.view_copy}
    return target.is_view or bool(tags.intersection(target.tags)) or _name(target).rstrip("_") in FREE


def _product(left: str, right: str) -> Callable[[Bound, Any], int]:
    """A matrix product: every element on the left meets every column on the right."""

    def formula(bound: Bound, _: Any) -> int:
        columns = bound[right].shape[-1] if bound[right].dim() > 1 else 1
        return int(bound[left].numel() * columns)

    return formula


def _linear(bound: Bound, output: Tensor) -> int:
    return output.numel() * int(bound["input"].shape[-1])


def _convolution(bound: Bound, output: Tensor) -> int:
    """An output element, or an input element if transposed, meets one filter: (C/groups, *k)."""
    elements: Tensor = bound["input"] if bound.get("transposed") else output
    return elements.numel() * int(math.prod(bound["weight"].shape[1:]))


def _transposed_convolution(bound: Bound, output: Tensor) -> int:
    return _convolution({**bound, "transposed": True}, output)


def _attention(bound: Bound, _: Any) -> int:
    """Q Kᵀ and the sum over V: every query (…, L, E) meets every key (…, S, E) and value (…, S, E_v)."""
    query, key, value = bound["query"], bound["key"], bound["value"]
    return int(math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _recurrent(bound: Bound) -> int:
    """Every weight matrix, of each layer and direction, is used once a step."""
    steps = int(math.prod(bound["input"].shape[:2]))
    weights: list[Tensor] = bound["params"]
    return steps * sum(weight.numel() for weight in weights if weight.dim() == 2)


_FORMULAS: dict[str, Callable[[Bound, Any], int]] = {
    "linear": _linear,
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    "addbmm": _product("batch1", "batch2"),
    "mv": _product("self", "vec"),
    "addmv": _product("mat", "vec"),
    "dot": _product("self", "tensor"),
    "vdot": _product("self", "other"),
    "convolution": _convolution,
    "_convolution": _convolution,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "conv_transpose1d": _transposed_convolution,
    "conv_transpose2d": _transposed_convolution,
    "conv_transpose3d": _transposed_convolution,
    "scaled_dot_product_attention": _attention,
}
