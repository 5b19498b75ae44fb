"""A memory computes once what it can hold, and forgets what was used longest ago."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.memory import Memory


@dataclass(frozen=True)
class _Pair:
    first: Tensor
    second: tuple[Tensor, ...]


class _Counted:
    """A computation that counts itself; its result takes 2 × 40 bytes."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> _Pair:
        self.times += 1
        return _Pair(torch.zeros(10), (torch.zeros(10),))


def test_what_fits_is_computed_once_and_is_the_same_object() -> None:
    memory, compute = Memory(200), _Counted()
    assert memory.once("a", compute) is memory.once("a", compute)
    assert compute.times == 1


def test_without_room_everything_is_computed_anew() -> None:
    for memory in (Memory(), Memory(79)):
        compute = _Counted()
        memory.once("a", compute)
        memory.once("a", compute)
        assert compute.times == 2


def test_the_least_recently_used_is_forgotten_first() -> None:
    memory, computed = Memory(200), {name: _Counted() for name in "abc"}
    for name in ("a", "b", "a", "c", "a", "b"):
        memory.once(name, computed[name])
    assert {name: each.times for name, each in computed.items()} == {"a": 1, "b": 2, "c": 1}


def test_what_never_fits_pushes_nothing_out() -> None:
    memory, small = Memory(100), _Counted()
    memory.once("small", small)
    memory.once("large", lambda: torch.zeros(1000))
    memory.once("small", small)
    assert small.times == 1


def test_what_a_result_holds_twice_takes_room_once() -> None:
    memory, times = Memory(100), list[int]()

    def compute() -> _Pair:
        times.append(1)
        held = torch.zeros(20)
        return _Pair(held, (held, held[5:]))

    assert memory.once("a", compute) is memory.once("a", compute)
    assert len(times) == 1


def test_parts_share_the_room_but_not_the_names() -> None:
    memory, compute = Memory(200), _Counted()
    memory.within(1).once("a", compute)
    memory.within(2).once("a", compute)
    memory.within(1).once("a", compute)
    assert compute.times == 2
    memory.within(1).within(2).once("a", compute)
    memory.within(1, 2).once("a", compute)
    assert compute.times == 3
