"""Admission of ONNX files (`.onnx`): one bounded walk over the bytes, before anything else parses them."""

import math
import mmap
from collections.abc import Iterable
from pathlib import Path

from workers.engine.admit import onnx_attributes
from workers.engine.admit.archive import show
from workers.engine.admit.document import malformed
from workers.engine.admit.dtypes import BYTES as ELEMENT_BYTES
from workers.engine.admit.onnx_model import (
    SEPARATOR,
    Attribute,
    Graph,
    GraphInput,
    Node,
    OnnxModel,
    StoredTensor,
)
from workers.engine.admit.onnx_schema import (
    DIMENSION,
    GRAPH,
    MAX_CONSTANTS,
    MAX_NODES,
    MODEL,
    NODE,
    OPSET,
    SHAPE,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)
from workers.engine.admit.onnx_tensors import MAX_AXES, MAX_LENGTH, as_text, dtype_of, tensor, text
from workers.engine.admit.protobuf import Budget, Fields, Message, too_complex
from workers.engine.errors import Rejected

OPSETS = range(9, 24)
"""The versions of the operator set that are understood."""
MAX_BYTES = (1 << 31) - 1
MAX_DEPTH = 8
MAX_FIELDS = 300_000
MAX_EXAMPLE_BYTES = 1 << 30

_UNNAMED = ("", "?")  # the second is what paddle2onnx calls every axis that it knows nothing of
_OWN_DOMAINS = ("", "ai.onnx")


def admit(path: Path) -> OnnxModel:
    """The model in an ONNX file. No parser but this one has seen it, and no tensor is copied.

    Raises `Rejected`: `not_onnx`, `too_large`, `too_complex`, `too_deep`, `external_data`, `functions`,
    `custom_operator`, `training_info`, `unsupported_opset`, `unsupported_input`, `unsupported_dtype`,
    `string_tensor`, `payload_size`, `bad_shape`, `unknown_value`, `hostile_name`, `malformed`.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Rejected("too_large", "The file is larger than the 2 GB that one ONNX file can hold.")
    if size == 0:
        raise Rejected("not_onnx", "The file is empty.")
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    fields = Message(data, 0, size, Budget(MAX_FIELDS)).fields(MODEL, "the model")
    _refuse(fields)
    opset = _opset(fields)
    reader = _Reader()
    graph = reader.graph(_messages(fields, "graph")[0], None, "")
    reader.refuse_foreign()
    _check_signature(graph)
    return OnnxModel(opset, graph)


class _Reader:
    """Reads graphs, counting over all of them."""

    def __init__(self) -> None:
        self._nodes = self._constants = self._graphs = 0
        self._foreign: set[str] = set()

    def graph(self, message: Message, outer: "_Scope | None", where: str, depth: int = 0) -> Graph:
        """A graph; `outer` has the values visible from outside."""
        if depth > MAX_DEPTH:
            raise Rejected("too_deep", f"Graphs are nested more than {MAX_DEPTH} deep{where}.")
        fields = message.fields(GRAPH, "a graph")
        if "sparse_initializer" in fields:
            raise Rejected(
                "unsupported_dtype", f"The graph{where} has sparse tensors.", hint="Store them dense."
            )
        scope = _Scope(outer, f"{SEPARATOR}{self._graphs}" if depth else "")
        self._graphs += 1
        constants = self._stored(fields, scope)
        inputs = self._inputs(fields, scope, constants, where)
        nodes = tuple(self._node(each, scope, depth) for each in self._limited(fields, "node"))
        outputs = tuple(scope.read(_value_name(each)) for each in _messages(fields, "output"))
        if not outputs:
            raise Rejected("unsupported_output", f"The graph{where} has no outputs.")
        return Graph(inputs, outputs, constants, nodes)

    def refuse_foreign(self) -> None:
        """Name every operator that does not belong to ONNX itself."""
        if self._foreign:
            raise Rejected(
                "custom_operator",
                f"The model has operators from outside of ai.onnx: {', '.join(sorted(self._foreign)[:20])}.",
                hint="Export the model without custom operators or optimisations for one runtime.",
            )

    def _limited(self, fields: Fields, kind: str) -> list[Message]:
        found = _messages(fields, kind)
        count = self._nodes + len(found)
        if count > MAX_NODES:
            raise too_complex("nodes", f"than {MAX_NODES}")
        self._nodes = count
        return found

    def _stored(self, fields: Fields, scope: "_Scope") -> dict[str, StoredTensor]:
        found = _messages(fields, "initializer")
        self._constants += len(found)
        if self._constants > MAX_CONSTANTS:
            raise too_complex("stored tensors", f"than {MAX_CONSTANTS}")
        return {scope.claim(name): stored for name, stored in map(tensor, found)}

    def _inputs(
        self, fields: Fields, scope: "_Scope", constants: dict[str, StoredTensor], where: str
    ) -> tuple[GraphInput, ...]:
        """What the caller gives. A stored tensor listed among the inputs is a default: it stays constant."""
        messages = _messages(fields, "input")
        inputs = []
        for message in messages:
            if scope.named(_value_name(message)) not in constants:
                inputs.append(_input(message, scope, nested=bool(where)))
        return tuple(inputs)

    def _node(self, message: Message, scope: "_Scope", depth: int) -> Node:
        fields = message.fields(NODE, "a node")
        operator = text(fields, "op_type", "an operator's name")
        domain = text(fields, "domain", "an operator's domain")
        if not (operator.isascii() and operator.isidentifier()):
            raise Rejected("hostile_name", f"{show(operator)} is not accepted as an operator's name.")
        if domain not in _OWN_DOMAINS:
            self._foreign.add(show(f"{domain}.{operator}"))
        names = [
            [as_text(each, "a value's name") for each in fields.get(key, [])] for key in ("input", "output")
        ]
        name = text(fields, "name", "a node's name")
        where = f" in the node {operator} {show(name or ''.join(names[1][:1]))}"
        inputs = tuple(name and scope.read(name, where) for name in names[0])
        attributes = {}
        for each in _messages(fields, "attribute"):
            key, value = self._attribute(each, scope, where, depth)
            if key in attributes:
                raise malformed(f"the attribute {show(key)} occurs twice{where}")
            attributes[key] = value
        return Node(
            operator, name, inputs, tuple(name and scope.claim(name) for name in names[1]), attributes
        )

    def _attribute(self, message: Message, scope: "_Scope", where: str, depth: int) -> tuple[str, Attribute]:
        key, value = onnx_attributes.read(message, where)
        if isinstance(value, Message):
            return key, self.graph(value, scope, where, depth + 1)
        return key, value


class _Scope:
    """The names known in a graph and around it, and what they are called over the whole file."""

    def __init__(self, outer: "_Scope | None", suffix: str) -> None:
        self._outer, self._own, self._suffix = outer, dict[str, str](), suffix

    def claim(self, name: str) -> str:
        """The unique name of a new value; raises `Rejected` where the name is taken or none."""
        if not name or self._find(name) is not None:
            raise malformed(f"two values are called {show(name)}" if name else "a value has no name")
        self._own[name] = name + self._suffix
        return self._own[name]

    def named(self, name: str) -> str | None:
        """The unique name of a value of this very graph."""
        return self._own.get(name)

    def read(self, name: str, where: str = "") -> str:
        """The unique name of a value known before; raises `Rejected` (`unknown_value`)."""
        found = self._find(name)
        if found is None:
            raise Rejected(
                "unknown_value",
                f"The value {show(name)} is read before anything computes it{where}.",
                hint="The nodes of a graph must be in order, without cycles.",
            )
        return found

    def _find(self, name: str) -> str | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope._own:
                return scope._own[name]
            scope = scope._outer
        return None


def _refuse(fields: Fields) -> None:
    """What has no place in a model for inference."""
    if "graph" not in fields:
        raise Rejected("not_onnx", "The file is not an ONNX model: it holds no graph.")
    if "functions" in fields:
        raise Rejected(
            "functions",
            "The model defines functions of its own.",
            hint="Inline them: onnx.inliner.inline_local_functions(model).",
        )
    if "training_info" in fields:
        raise Rejected(
            "training_info", "The model carries training graphs.", hint="Export it for inference alone."
        )


def _opset(fields: Fields) -> int:
    """The version of ONNX's own operators."""
    versions = {}
    for message in _messages(fields, "opset_import"):
        parts = message.fields(OPSET, "an operator set")
        domain = text(parts, "domain", "an operator set's domain")
        if domain in versions:
            raise malformed(f"the operator set {show(domain)} is imported twice")
        versions[domain] = parts.get("version", [0])[0]
    found = {versions[domain] for domain in _OWN_DOMAINS if domain in versions}
    if len(found) != 1 or not isinstance(version := found.pop(), int) or version not in OPSETS:
        raise Rejected(
            "unsupported_opset",
            f"The model is not written in one operator set of ONNX between {OPSETS[0]} and {OPSETS[-1]}.",
            hint="Export it with opset_version=20, or convert it by onnx.version_converter.",
        )
    return version


def _input(message: Message, scope: _Scope, *, nested: bool) -> GraphInput:
    fields = message.fields(VALUE, "an input")
    name = text(fields, "name", "an input's name")
    unique = scope.claim(name)
    if nested:
        return GraphInput(unique, None, None)
    kinds = _messages(fields, "type")[0].fields(TYPE, "a type") if "type" in fields else {}
    if "tensor_type" not in kinds:
        raise Rejected(
            "unsupported_input",
            f"The input {show(name)} is not a tensor.",
            hint="Split it into tensors.",
            field=name,
        )
    parts = _messages(kinds, "tensor_type")[0].fields(TENSOR_TYPE, "a tensor's type")
    if "shape" not in parts:
        raise Rejected(
            "unsupported_input",
            f"The input {show(name)} does not say how many axes it has.",
            hint="Declare its shape; axes may be variable.",
            field=name,
        )
    axes = _messages(_messages(parts, "shape")[0].fields(SHAPE, "a shape"), "dim")
    if len(axes) > MAX_AXES:
        raise Rejected("bad_shape", f"The input {show(name)} has more than {MAX_AXES} axes.", field=name)
    shape = tuple(_axis(axis, place, name) for place, axis in enumerate(axes))
    return GraphInput(unique, dtype_of(parts.get("elem_type", [0]), f"the input {show(name)}"), shape)


def _axis(message: Message, place: int, name: str) -> int | str:
    """A length, or what a variable axis is called: unnamed ones after the input and their place."""
    fields = message.fields(DIMENSION, "an axis")
    symbol = text(fields, "dim_param", "an axis's name")
    if "dim_value" not in fields:
        return f"{name}.{place}" if symbol in _UNNAMED else symbol
    length = fields["dim_value"][0]
    if length == -1 and not symbol:  # how paddle2onnx writes a variable axis
        return f"{name}.{place}"
    if symbol or not isinstance(length, int) or not 0 < length < MAX_LENGTH:
        raise Rejected(
            "bad_shape",
            f"The axis {place} of the input {show(name)} has the length {length}.",
            hint="Lengths are positive; variable axes have a name (dim_param).",
            field=name,
        )
    return length


def _check_signature(graph: Graph) -> None:
    """The trace allocates example inputs, with short variable axes: they must not be huge."""
    if not graph.inputs:
        raise Rejected("unsupported_input", "The model takes no tensor.")
    size = sum(
        math.prod(axis if isinstance(axis, int) else 64 for axis in spec.shape or ())
        * ELEMENT_BYTES[spec.dtype or "float32"]
        for spec in graph.inputs
    )
    if size > MAX_EXAMPLE_BYTES:
        raise Rejected("input_too_large", "The smallest inputs that the model takes are too large.")


def _value_name(message: Message) -> str:
    return text(message.fields(VALUE, "a value"), "name", "a value's name")


def _messages(fields: Fields, key: str) -> list[Message]:
    values: Iterable[int | Message] = fields.get(key, [])
    return [value for value in values if isinstance(value, Message)]
