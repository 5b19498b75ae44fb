"""Admission of a graph's operator calls: known operators, known values, typed arguments."""

import keyword
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from workers.engine.admit import operators
from workers.engine.admit.archive import show
from workers.engine.admit.document import expect, field, malformed, name_of, union
from workers.engine.admit.dtypes import dtype
from workers.engine.admit.program import Argument, Call, Reference, Subgraph, TorchConstant
from workers.engine.errors import Rejected

MAX_NODES = 20_000
MAX_DEPTH = 4  # of graphs in one another
MAX_SUBGRAPHS = 256

_MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
_KEYWORD = 2
_Readers = Mapping[str, Callable[[object, set[str]], Argument]]
_HINT = "Call eval() on the model before exporting it."


def parse(nodes: list[Any], known: set[str], *, depth: int = 0, loops: bool = True) -> tuple[Call, ...]:
    """The calls in order. `known` holds the values given from outside, and grows by their results.

    `depth` is in how many other graphs this one lies; `loops` whether it may hold a scan.

    Raises `Rejected`: `unknown_operator`, `unknown_value`, `unsupported_argument`, `too_complex`, `too_deep`,
    `malformed`.
    """
    calls: list[Call] = []
    count = 0
    for node in nodes:
        if count >= MAX_NODES:
            raise _too_complex()
        target = field(node, "target", str)
        if operators.is_assertion(target):
            continue
        if target in _HIGHER_ORDER and (loops or target != operators.SCAN):
            call = _HIGHER_ORDER[target](target, node, known, _subgraphs(depth, loops and target in _WRAPS))
        else:
            operators.check(target)
            call = _call(target, node, known, _READERS)
        claim([name for name in call.results if name is not None], known)
        calls.append(call)
        count += _size(call)
    if sum(map(_graphs, calls)) > MAX_SUBGRAPHS:
        raise Rejected("too_complex", f"The model holds more than {MAX_SUBGRAPHS} graphs in its graph.")
    return tuple(calls)


def identifier(value: object, what: str) -> str:
    """A name that is safe wherever torch writes it, generated code included; raises `Rejected`."""
    name = name_of(value, what)
    if keyword.iskeyword(name):
        raise Rejected("hostile_name", f"{show(name)} is not accepted as {what}: it is a keyword of Python.")
    return name


def known_name(argument: object, known: set[str]) -> str:
    """The name in `{"name": …}`, which must be that of a value computed before."""
    return _known(field(argument, "name", str), known)


def claim(names: Iterable[str], known: set[str]) -> None:
    """Add names to `known`; raises `Rejected` where one is taken already."""
    for name in names:
        if name in known:
            raise malformed(f"two values are called {show(name)}")
        known.add(name)


def mutates(what: str) -> Rejected:
    """The rejection of a model that changes its own state when it runs."""
    return Rejected(
        "mutates_state", f"The model changes its own state when it runs ({show(what)}).", hint=_HINT
    )


def _size(call: Call) -> int:
    """The number of calls that it stands for: those of the graphs in it count as well."""
    return 1 + sum(_size(inner) for graph in _bodies(call) for inner in graph.calls)


def _graphs(call: Call) -> int:
    """How many graphs a call holds, those inside of them included."""
    return sum(1 + sum(map(_graphs, graph.calls)) for graph in _bodies(call))


def _bodies(call: Call) -> list[Subgraph]:
    return [argument for argument in call.arguments if isinstance(argument, Subgraph)]


def _too_complex() -> Rejected:
    return Rejected(
        "too_complex",
        f"The model makes more than {MAX_NODES} calls of operators.",
        hint="Export recurrent layers as layers and loops as one scan, not step by step.",
    )


def _call(target: str, node: object, known: set[str], readers: _Readers) -> Call:
    arguments: list[Argument] = []
    keywords: dict[str, Argument] = {}
    for item in field(node, "inputs", list):
        value = _argument(field(item, "arg", dict), known, readers)
        if _by_name(target, item.get("kind")):
            keywords[identifier(item.get("name"), "the name of an argument")] = value
        else:
            arguments.append(value)
    results, unpacked = _results(field(node, "outputs", list))
    return Call(target, tuple(arguments), keywords, results, unpacked)


def _by_name(target: str, kind: object) -> bool:
    """Whether an argument is given by name. Torch up to 2.5 does not say: operators know theirs by name."""
    return kind == _KEYWORD or (kind is None and target.startswith("torch.ops.aten."))


def _scan(target: str, node: object, known: set[str], subgraphs: _Readers) -> Call:
    """A scan takes its body, the first carried values, what it runs over, and what every step reads."""
    call = _call(target, node, known, {**subgraphs, **_only("as_tensors")})
    body, *groups = call.arguments
    sizes = [len(group) for group in groups if isinstance(group, tuple)]
    if call.keywords or not isinstance(body, Subgraph) or len(sizes) != 3 or len(groups) != 3:
        raise malformed("a scan should take a graph and three lists of tensors")
    _demand_fit(call, body, sum(sizes))
    return call


def _cond(target: str, node: object, known: set[str], subgraphs: _Readers) -> Call:
    """A cond takes a truth value, the graph for true, the graph for false, and what both read."""
    readers = _only("as_tensor", "as_bool", "as_sym_bool", "as_tensors")
    call = _call(target, node, known, {**subgraphs, **readers})
    if call.keywords or len(call.arguments) != 4:
        raise malformed("a cond should take a truth value, two graphs and a list of tensors")
    predicate, *branches, operands = call.arguments
    if not isinstance(predicate, bool | Reference) or not isinstance(operands, tuple):
        raise malformed("a cond should take a truth value, two graphs and a list of tensors")
    for branch in branches:
        _demand_fit(call, branch, len(operands))
    return call


def _wrap(target: str, node: object, known: set[str], subgraphs: _Readers) -> Call:
    """A graph to run under a setting that is of no account: the settings, the graph, and what it reads."""
    call = _call(target, node, known, {**_READERS, **subgraphs})
    if call.keywords or len(call.arguments) <= _SETTINGS[target]:
        raise malformed("a wrapped graph should follow its settings")
    body, *operands = call.arguments[_SETTINGS[target] :]
    if not all(isinstance(operand, Reference) for operand in operands):
        raise malformed("a wrapped graph should read tensors")
    if target == operators.AUTOCAST and call.arguments[2] is not False:
        raise Rejected(
            "unknown_operator",
            "The model casts automatically (torch.autocast inside forward), which is not supported.",
            hint="Cast by calls to `to`, or leave autocast out, and export again.",
        )
    _demand_fit(call, body, len(operands))
    return Call(target, (body, tuple(operands)), {}, call.results, call.unpacked)


def _demand_fit(call: Call, body: Argument, operands: int) -> None:
    if not isinstance(body, Subgraph):
        raise malformed("a graph is missing where one should be run")
    if len(body.inputs) != operands or len(body.outputs) != len(call.results):
        raise malformed("a graph should take and return as many tensors as the call that runs it")


_HIGHER_ORDER: Mapping[str, Callable[[str, object, set[str], _Readers], Call]] = {
    operators.SCAN: _scan,
    operators.COND: _cond,
    operators.GRAD_MODE: _wrap,
    operators.AUTOCAST: _wrap,
}
_SETTINGS = {operators.GRAD_MODE: 1, operators.AUTOCAST: 4}
_WRAPS = frozenset(_SETTINGS)


def _subgraphs(depth: int, loops: bool) -> _Readers:
    """The reader of the graphs inside of one that lies in `depth` others."""

    def read(value: object, _: set[str]) -> Argument:
        if depth == MAX_DEPTH:
            raise Rejected("too_deep", f"The model nests graphs more than {MAX_DEPTH} deep.")
        graph = field(value, "graph", dict)
        known: set[str] = set()
        inputs = tuple(_tensor_name(item) for item in field(graph, "inputs", list))
        claim(inputs, known)
        calls = parse(field(graph, "nodes", list), known, depth=depth + 1, loops=loops)
        outputs = tuple(_known(_tensor_name(item), known) for item in field(graph, "outputs", list))
        return Subgraph(inputs, calls, outputs)

    return {"as_graph": read}


def _tensor_name(document: object) -> str:
    kind, value = union(document)
    if kind != "as_tensor":
        raise Rejected("unsupported_argument", f"A graph inside of the graph takes or returns {show(kind)}.")
    return identifier(field(value, "name", str), "the name of a value")


def _results(outputs: list[Any]) -> tuple[tuple[str | None, ...], bool]:
    kinds = [union(output) for output in outputs]
    if len(kinds) == 1 and kinds[0][0] == "as_tensors":
        names = [field(item, "name", str) for item in expect(kinds[0][1], list, "a list of results")]
        return tuple(identifier(name, "the name of a value") for name in names), True
    return tuple(_result(kind, value) for kind, value in kinds), len(kinds) != 1


def _result(kind: str, value: object) -> str | None:
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return identifier(field(value, "name", str), "the name of a value")
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return identifier(field(value, "as_name", str), "the name of a value")
    raise Rejected("unsupported_argument", f"An operator returns a value of the kind {show(kind)}.")


def _argument(document: object, known: set[str], readers: _Readers) -> Argument:
    kind, value = union(document)
    if kind not in readers:
        raise Rejected("unsupported_argument", f"An operator takes an argument of the kind {show(kind)}.")
    return readers[kind](value, known)


def _known(name: str, known: set[str]) -> str:
    if name not in known:
        raise Rejected("unknown_value", f"The graph uses {show(name)} before anything is called so.")
    return name


def _reference(value: object, known: set[str]) -> Argument:
    return Reference(known_name(value, known))


def _optional_reference(value: object, known: set[str]) -> Argument:
    kind, inner = union(value)
    return None if kind == "as_none" else _reference(inner, known)


def _symbolic(kind: type[int] | type[float] | type[bool]) -> Callable[[object, set[str]], Argument]:
    """A reader of numbers that may be computed: a value's name, or the number itself."""

    def read(value: object, known: set[str]) -> Argument:
        tag, inner = union(value)
        if tag == "as_name":
            return Reference(_known(expect(inner, str, "the name of a value"), known))
        return _literal(kind)(inner, known)

    return read


def _literal(
    kind: type[int] | type[float] | type[bool] | type[str],
) -> Callable[[object, set[str]], Argument]:
    def read(value: object, _: set[str]) -> Argument:
        if kind is float and type(value) is str and value in _FLOATS:
            return _FLOATS[value]
        if kind is float and type(value) is int:
            return float(value)
        literal: Argument = expect(value, kind, "a literal")
        if type(literal) is int and abs(literal) >= 1 << 63:
            raise malformed("an integer is out of range")
        if type(literal) is str and len(literal) > 200:
            raise malformed("a string is too long")
        return literal

    return read


def _only(*kinds: str) -> _Readers:
    return {kind: _READERS[kind] for kind in kinds}


def constant(document: object) -> Argument:
    """A number, a truth value, a text or None; raises `Rejected` for anything else."""
    return _argument(document, set(), _only("as_none", "as_int", "as_float", "as_bool", "as_string"))


def _many(read: Callable[[object, set[str]], Argument]) -> Callable[[object, set[str]], Argument]:
    def read_all(value: object, known: set[str]) -> Argument:
        return tuple(read(item, known) for item in expect(value, list, "a list of arguments"))

    return read_all


def _memory_format(value: object, _: set[str]) -> Argument:
    number = expect(value, int, "a memory format")
    if number not in _MEMORY_FORMATS:
        raise malformed(f"there is no memory format {number}")
    return TorchConstant("memory_format", _MEMORY_FORMATS[number])


def _layout(value: object, _: set[str]) -> Argument:
    if expect(value, int, "a layout") != 7:
        raise Rejected("unsupported_layout", "The model uses tensors that are not dense.")
    return TorchConstant("layout", "strided")


def _device(value: object, _: set[str]) -> Argument:
    if field(value, "type", str) != "cpu":
        raise Rejected(
            "not_on_cpu",
            "The model places tensors on another device than the CPU.",
            hint="Move the model and its example inputs to the CPU before torch.export.",
        )
    return TorchConstant("device", "cpu")


_READERS: _Readers = {
    "as_none": lambda _, __: None,
    "as_tensor": _reference,
    "as_tensors": _many(_reference),
    "as_optional_tensor": _optional_reference,
    "as_optional_tensors": _many(_optional_reference),
    "as_int": _literal(int),
    "as_ints": _many(_literal(int)),
    "as_float": _literal(float),
    "as_floats": _many(_literal(float)),
    "as_bool": _literal(bool),
    "as_bools": _many(_literal(bool)),
    "as_string": _literal(str),
    "as_sym_int": _symbolic(int),
    "as_sym_ints": _many(_symbolic(int)),
    "as_sym_float": _symbolic(float),
    "as_sym_floats": _many(_symbolic(float)),
    "as_sym_bool": _symbolic(bool),
    "as_sym_bools": _many(_symbolic(bool)),
    "as_scalar_type": lambda value, _: TorchConstant("dtype", dtype(expect(value, int, "a dtype"))),
    "as_memory_format": _memory_format,
    "as_layout": _layout,
    "as_device": _device,
}
