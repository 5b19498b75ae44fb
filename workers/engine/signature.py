"""How a network is called and what it gives back, where that is more than tensors in a row."""

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Nested: TypeAlias = Any
"""A tuple, list or dictionary of such, a `Place`, or a constant: a number, a truth value, a text, None."""


@dataclass(frozen=True)
class Place:
    """Where one of several tensors belongs: the one of that number."""

    number: int


@dataclass(frozen=True)
class Signature:
    """The call of a network, whose tensors are numbered in the order of its inputs and outputs.

    `names` are those of the arguments by position. `results` is None where the results are not nested, or in
    a class of the user's: what is returned is then one tensor, or a tuple of them.
    """

    names: tuple[str, ...]
    positional: tuple[Nested, ...]
    keyword: Mapping[str, Nested]
    results: Nested = None

    @property
    def arguments(self) -> dict[str, Nested]:
        """All arguments by name."""
        return dict(zip(self.names, self.positional, strict=True)) | dict(self.keyword)

    @property
    def input_names(self) -> list[str]:
        """What the inputs are called: by the ways to them, such as `batch.ids` or `pair.0`."""
        return [".".join(map(str, way)) for way in _ways(self.arguments)]


def filled(nested: Nested, values: Sequence[Any]) -> Nested:
    """`nested` with the values in their places."""
    return _mapped(nested, lambda leaf: values[leaf.number] if isinstance(leaf, Place) else leaf)


def only(nested: Nested, values: Sequence[Any]) -> Nested:
    """`nested` with the values in their places, and None in the place of constants."""
    return _mapped(nested, lambda leaf: values[leaf.number] if isinstance(leaf, Place) else None)


def taken(nested: Nested, given: Nested) -> list[Any]:
    """The values that stand in `given` where `nested` has its places, in the order of these.

    Raises `KeyError`, `IndexError` or `TypeError` where the two differ in form.
    """
    return [functools.reduce(operator.getitem, way, given) for way in _ways(nested)]


def _mapped(nested: Nested, leaf: Callable[[Any], Any]) -> Nested:
    if isinstance(nested, Mapping):
        return {key: _mapped(item, leaf) for key, item in nested.items()}
    if isinstance(nested, tuple | list):
        return type(nested)(_mapped(item, leaf) for item in nested)
    return leaf(nested)


def _ways(nested: Nested) -> Iterator[tuple[Any, ...]]:
    """The way, key by key, to every place."""
    if isinstance(nested, Place):
        yield ()
    elif isinstance(nested, Mapping | tuple | list):
        for key, item in nested.items() if isinstance(nested, Mapping) else enumerate(nested):
            yield from ((key, *way) for way in _ways(item))
