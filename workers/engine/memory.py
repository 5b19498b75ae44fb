"""What was computed once and may be asked for again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Memory:
    """Results by name, of so many bytes of tensors at most: the least recently used are forgotten first.

    A memory of no bytes computes everything anew.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._within: tuple[Hashable, ...] = ()

    def within(self, *names: Hashable) -> "Memory":
        """The same memory, for names that mean something together with these only."""
        part = Memory(self._most)
        part._held, part._within = self._held, (*self._within, *names)
        return part

    def once(self, name: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, or gave when it was last asked for under this name."""
        key = (self._within, name)
        if key in self._held:
            self._held.move_to_end(key)
            known: T = self._held[key][0]
            return known
        found = compute()
        size = _bytes(found)
        if size <= self._most:
            self._forget(self._most - size)
            self._held[key] = found, size
        return found

    def _forget(self, most: int) -> None:
        """All but so many bytes."""
        held = sum(size for _, size in self._held.values())
        while held > most:
            held -= self._held.popitem(last=False)[1][1]


def _bytes(value: Any) -> int:
    """What the tensors in a result and in its attributes lie in, each once; one byte for the rest."""
    storages = (tensor.untyped_storage() for tensor in _tensors(value))
    return 1 + sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    for part in value if isinstance(value, tuple | list) else getattr(value, "__dict__", {}).values():
        yield from _tensors(part)
