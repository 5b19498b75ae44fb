"""Admission of the way a program is called: arguments nested in tuples, lists and dictionaries."""

from collections.abc import Iterator, Sequence
from typing import Any

from workers.engine.admit import calls
from workers.engine.admit.archive import show
from workers.engine.admit.document import expect, field, malformed, name_of, parse
from workers.engine.errors import Rejected
from workers.engine.signature import Nested, Place, Signature

MAX_DEPTH = 16

# Names that torch pastes into the code of the graphs it generates.
_RESERVED = frozenset({"self", "torch", "pytree", "fx_pytree", "device", "inf", "nan"})


def signature(
    module: dict[str, Any], inputs: Sequence[Nested], outputs: Sequence[Nested], values: Sequence[str]
) -> Signature | None:
    """The signature of a serialised graph module; None where it is that of tensors in a row.

    `inputs` and `outputs` are what stands at the leaves, in order: places and constants. `values` are the
    names of the inputs in the graph. Nothing is looked up or built but tuples, lists and dictionaries. Raises
    `Rejected`: `unsupported_input` for arguments in a class of the user's, `hostile_name`, `too_deep`,
    `malformed`.
    """
    call = _call(module)
    arguments = _read(call, "in_spec", inputs)
    if not (isinstance(arguments, tuple) and list(map(type, arguments)) == [tuple, dict]):
        raise malformed("a model should take positional arguments and keywords")
    positional, keyword = arguments
    results = _results(call, outputs)
    if results is None and not keyword and all(isinstance(item, Place) for item in positional):
        return None
    names = tuple(_names(call, positional, values))
    for name in (*names, *keyword):
        input_name(name)
    if len({*names, *keyword}) < len(names) + len(keyword):
        raise malformed("two arguments have one name")
    return Signature(names, positional, keyword, results)


def input_name(value: object) -> str:
    """The name of an input or argument, which torch writes into code; raises `Rejected`."""
    name = calls.identifier(value, "the name of an input")
    if name in _RESERVED:
        raise Rejected("hostile_name", f"{show(name)} is not accepted as the name of an input.")
    return name


def _call(module: dict[str, Any]) -> dict[str, Any]:
    entries = field(module, "module_call_graph", list)
    root = next((entry for entry in entries if field(entry, "fqn", str) == ""), None)
    return field(root, "signature", dict)


def _names(call: dict[str, Any], positional: tuple[Nested, ...], values: Sequence[str]) -> Iterator[Any]:
    """What the arguments by position are called, where the file says so."""
    told = call.get("forward_arg_names")
    for place, argument in enumerate(positional):
        if isinstance(told, list) and place < len(told):
            yield told[place]
        else:
            yield values[argument.number] if isinstance(argument, Place) else f"arg_{place}"


def _results(call: dict[str, Any], outputs: Sequence[Nested]) -> Nested:
    """The results as they are nested; None where they are in a row, or in what cannot be built here."""
    try:
        results = _read(call, "out_spec", outputs)
    except Rejected as rejected:
        if rejected.code not in ("unsupported_input", "hostile_name"):
            raise
        return None
    row = isinstance(results, tuple) and len(results) > 1 and all(isinstance(item, Place) for item in results)
    return None if row or isinstance(results, Place) else results


def _read(call: dict[str, Any], key: str, leaves: Sequence[Nested]) -> Nested:
    document = parse(field(call, key, str), "the description of a call")
    protocol, *specs = expect(document, list, "the description of a call")
    if protocol != 1 or len(specs) != 1:
        raise malformed("the description of a call is of an unknown version")
    remaining = iter(leaves)
    nested = _nested(specs[0], remaining, 0)
    if next(remaining, remaining) is not remaining:
        raise malformed("a call does not take or return what the graph does")
    return nested


def _nested(spec: object, leaves: Iterator[Nested], depth: int) -> Nested:
    kind = expect(spec, dict, "a part of a call").get("type")
    if kind is None:
        leaf = next(leaves, leaves)
        if leaf is leaves:
            raise malformed("a call does not take or return what the graph does")
        return leaf
    if depth == MAX_DEPTH:
        raise Rejected("too_deep", f"The arguments are nested more than {MAX_DEPTH} deep.")
    items = [_nested(child, leaves, depth + 1) for child in field(spec, "children_spec", list)]
    if kind == "builtins.dict":
        return _dictionary(field(spec, "context", str), items)
    if kind in ("builtins.tuple", "builtins.list"):
        return tuple(items) if kind == "builtins.tuple" else items
    raise Rejected(
        "unsupported_input",
        f"The model takes an argument of the kind {show(str(kind))}.",
        hint="Give it tensors in tuples, lists and dictionaries, or take them apart in a module around it.",
    )


def _dictionary(context: str, items: list[Nested]) -> dict[str | int, Nested]:
    keys = expect(parse(context, "the keys of a dictionary"), list, "the keys of a dictionary")
    for key in keys:
        if type(key) is not int:
            name_of(key, "the key of an input")
    if len(keys) != len(items) or len(set(keys)) < len(keys):
        raise malformed("a dictionary should have as many keys as items, each its own")
    return dict(zip(keys, items, strict=True))
