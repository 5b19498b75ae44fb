"""Allocation: seconds to choose ranks for a network the size of ResNet-50."""

from random import Random

from app.planning.allocation import Option, allocate
from benchmarks.timing import in_turns, print_table

_LAYERS, _RANKS = 54, 24


def run() -> None:
    """54 layers with 24 ranks each, at half of the cost."""
    random = Random(0)  # noqa: S311 -- not for secrets
    layers = [_menu(random) for _ in range(_LAYERS)]
    budget = sum(options[0].cost for options in layers) // 2
    seconds = in_turns({f"{_LAYERS} layers × {_RANKS} ranks": lambda: allocate(layers, budget)})
    print_table("Allocation under one budget", seconds)


def _menu(random: Random) -> list[Option]:
    """Dense, then falling cost at rising loss."""
    cost, decay = random.randint(10**6, 10**8), random.uniform(1.0, 6.0)
    ranks = range(_RANKS, 0, -1)
    return [
        Option(cost, 0.0),
        *(Option(cost * r // (_RANKS + 4), decay * (1 - r / _RANKS) ** 2 + 1e-3) for r in ranks),
    ]
