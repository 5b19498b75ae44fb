"""Timing rivals in turns."""

import time
from collections.abc import Callable, Mapping
from statistics import median

Rival = Callable[[], object]


def in_turns(rivals: Mapping[str, Rival], rounds: int = 5) -> dict[str, float]:
    """Median seconds per rival over `rounds` rounds, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for counted in range(-1, rounds):
        for name, rival in rivals.items():
            start = time.perf_counter()
            rival()
            if counted >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def print_table(title: str, seconds: Mapping[str, float]) -> None:
    """One row per rival, relative to the first."""
    first = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:36} {value * 1000:10.1f} ms   {value / first:6.2f} ×")
