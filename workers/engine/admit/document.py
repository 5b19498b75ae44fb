"""JSON from strangers: bounded, and read through accessors that check every type."""

import json
from typing import Any, TypeVar

from workers.engine.admit.archive import show
from workers.engine.errors import Rejected

_T = TypeVar("_T")


def load(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `data`, called `what` in messages; raises `Rejected` like `parse`."""
    return expect(parse(data, what), dict, what)


def parse(data: bytes | str, what: str) -> object:
    """The JSON in `data`, called `what` in messages.

    Raises `Rejected`: `malformed` where it is none, `too_deep` where it nests beyond Python's own limit.
    """
    try:
        document: object = json.loads(data)
    except RecursionError:
        raise Rejected("too_deep", f"{what} is nested too deeply.") from None
    except ValueError:
        raise Rejected("malformed", f"{what} is not valid JSON.") from None
    return document


def expect(value: object, kind: type[_T], what: str) -> _T:
    """`value`, if it is exactly a `kind` (True is no int); raises `Rejected` (`malformed`)."""
    if type(value) is not kind:
        raise malformed(f"{what} should be of type {kind.__name__}")
    return value


def field(document: object, key: str, kind: type[_T]) -> _T:
    """The field `key` of an object, if it is there and of that type."""
    table = expect(document, dict, f"the object that holds {key!r}")
    return expect(table.get(key), kind, f"the field {key!r}")


def union(document: object) -> tuple[str, Any]:
    """The tag and the value of a tagged union, written as an object with one field."""
    table = expect(document, dict, "a tagged value")
    if len(table) != 1:
        raise malformed("a tagged value should have one field")
    return next(iter(table.items()))


def malformed(problem: str) -> Rejected:
    """The rejection of a document that breaks its format."""
    return Rejected("malformed", f"The file does not follow its format: {problem}.")


def name_of(value: object, what: str) -> str:
    """A name short enough to be shown and kept: an ASCII identifier of at most 200 characters."""
    name = expect(value, str, what)
    if not (name.isascii() and name.isidentifier() and len(name) <= 200):
        raise Rejected(
            "hostile_name", f"{show(name)} is not accepted as {what}: names are ASCII identifiers."
        )
    return name


def path_of(value: object, what: str) -> str:
    """A name, or several joined by dots as nested inputs are called: `batch.ids`, `pair.0`."""
    path = expect(value, str, what)
    first, *rest = path.split(".")
    for part in (first, *(part for part in rest if not (part.isascii() and part.isdigit()))):
        name_of(part, what)
    if len(path) > 200:
        raise Rejected("hostile_name", f"{show(path)} is too long for {what}.")
    return path
