"""What a hostile file is to the tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.acceptance.hostile.trap import Trap

Noun = Literal["models", "datasets"]
Build: TypeAlias = Callable[[Trap], bytes]


@dataclass(frozen=True)
class Vector:
    """A file as `build` makes it, posted below `/v1/{noun}` under a name.

    `codes` are those of the problems that it may be refused with; where there are none, it has to be read as
    if what is hostile in it were not there.
    """

    name: str
    noun: Noun
    filename: str
    codes: frozenset[str]
    build: Build


class Corpus:
    """The vectors of one kind of file; each is a function that is called like it."""

    def __init__(self, kind: str, noun: Noun, filename: str) -> None:
        self.vectors: list[Vector] = []
        self._kind = kind
        self._noun: Noun = noun
        self._filename = filename

    def vector(self, *codes: str, filename: str = "") -> Callable[[Build], Build]:
        """Add a builder, and what its file is refused with."""

        def add(build: Build) -> Build:
            self.add(build.__name__.strip("_"), build, *codes, filename=filename)
            return build

        return add

    def add(self, name: str, build: Build, *codes: str, filename: str = "") -> None:
        """Add a builder under a name."""
        named = Vector(
            f"{self._kind}: {name}", self._noun, filename or self._filename, frozenset(codes), build
        )
        self.vectors.append(named)
