"""The operators that are understood, by their names in ONNX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from workers.engine.admit.onnx_model import Attribute, Graph, Node, StoredTensor
from workers.engine.errors import Rejected

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call as an operator sees it: its attributes, and the version of the operator set."""

    node: Node
    opset: int

    def get(self, name: str, default: T) -> T:
        """An attribute of the type of its default; raises `Rejected` (`malformed`) where it has another."""
        value = self.node.attributes.get(name, default)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, cast(type, wanted)):
            raise Rejected("malformed", f"The attribute {name!r} of {self.node} is not of its type.")
        return cast(T, value)

    def maybe(self, name: str) -> Attribute | None:
        """An attribute, or None where it is left out."""
        return self.node.attributes.get(name)

    def graph(self, name: str) -> Graph:
        """A graph among the attributes."""
        value = self.node.attributes.get(name)
        if not isinstance(value, Graph):
            raise Rejected("malformed", f"{self.node} has no graph {name!r}.")
        return value

    def tensor(self, name: str) -> StoredTensor | None:
        """A tensor among the attributes, or None."""
        value = self.node.attributes.get(name)
        return value if isinstance(value, StoredTensor) else None

    def expect(self, name: str, *accepted: Any, default: Any) -> Any:
        """An attribute that has one of the values that are supported; raises `Rejected`."""
        value = self.node.attributes.get(name, default)
        if value not in accepted:
            raise self.unsupported(f"{name} = {value!r}")
        return value

    def unsupported(self, what: str) -> Rejected:
        """The rejection of a way to use the operator."""
        return Rejected(
            "unsupported_operator",
            f"The model uses {self.node} in a way that is not supported: {what}.",
            hint="docs/onnx.md lists what is. Upload a .pt2 instead where PyTorch is at hand.",
            layer=self.node.name or None,
        )

    @property
    def wants(self) -> int:
        """How many of its outputs are named."""
        return sum(map(bool, self.node.outputs))


Function = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """`function` takes the call and its inputs (None where left out), and returns a value or a tuple.

    `limits` says in words what is not supported of it.
    """

    function: Function
    limits: str


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, limits: str = "") -> Callable[[Function], Function]:
    """Register a function as operators."""

    def register(function: Function) -> Function:
        for name in names:
            OPERATORS[name] = Operator(function, limits)
        return function

    return register
