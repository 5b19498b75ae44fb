"""Which forms of a layer are worth a closer look: to be timed, kept on a menu, or taken for its signal."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any

from workers.engine.decomposition.spectrum import singular_energies
from workers.engine.decomposition.vbmf import evbmf_rank
from workers.engine.layers.base import Factorization, Form, Layer

_STEPS = (8, 4, 2, 1)  # coarse ranks first: multiples of eight run faster than their neighbours
_TIMED = (0.0, 0.07, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)  # of a layer's MACs
_MENU = 48  # forms of one grid
_LARGEST_GRID = 4096  # that is looked through for a menu, besides the coarsest


def worth_timing(layer: Layer, methods: Iterable[str]) -> list[Form]:
    """The forms that a budget of time may choose from: of every method a handful, from a tenth of the dense
    layer's MACs upwards, each the best of its size."""
    found = [form for method in methods for form in _best_of_each_size(layer, layer.methods[method])]
    return list(dict.fromkeys(found))


def _best_of_each_size(layer: Layer, factorization: Factorization[Any]) -> list[Form]:
    _, found = _coarsest(factorization)
    forms = sorted(found, key=lambda form: form.macs)
    sizes = [(low * layer.macs, high * layer.macs) for low, high in pairwise(_TIMED)]
    within = [[form for form in forms if low < form.macs <= high] for low, high in sizes]
    return [min(each, key=lambda form: form.error) for each in within if each]


def signal_rank(factorization: Factorization[Any]) -> tuple[int, ...] | None:
    """The rank at which a weight's own matrices stand out of noise (Nakajima et al. 2013; for Tucker, Kim et
    al. 2016): 1 at least for each of its numbers, of several groups the largest. None where the rank is that
    of no matrix."""
    ranks = (
        max(1, *(evbmf_rank(singular_energies(M), (M.shape[0], M.shape[1])) for M in matrices))
        for matrices in factorization.unfoldings()
    )
    return tuple(ranks) or None


def for_menu(factorization: Factorization[Any]) -> list[Form]:
    """The forms to choose from where the weight is no longer at hand: undominated in parameters, MACs and
    error.

    Of the coarsest grid of ranks that has any, 48 at most, spread over their cost. While there are fewer, as
    many of each finer grid; beyond that those at its low end, so that the least reachable cost is known.
    """
    coarsest, found = _coarsest(factorization)
    kept = dict.fromkeys(_spread(_front(found)))
    for step in (step for step in _STEPS if step < coarsest):
        if len(kept) < _MENU and _size(factorization, step) <= _LARGEST_GRID:
            kept |= dict.fromkeys(_spread(_front(factorization.forms(step))))
        kept |= dict.fromkeys(_low_end(factorization, step))
    return list(kept)


def _coarsest(factorization: Factorization[Any]) -> tuple[int, Sequence[Form]]:
    """The coarsest grid of ranks that has forms: its step, and they."""
    grids = ((step, list(factorization.forms(step))) for step in _STEPS)
    return next(((step, forms) for step, forms in grids if forms), (1, []))


def _size(factorization: Factorization[Any], step: int) -> int:
    size = 1
    for most in factorization.max_rank:
        size *= most // step
    return size


def _low_end(factorization: Factorization[Any], step: int) -> Iterator[Form]:
    """The forms with one or two steps in every mode."""
    for rank in product(*(range(step, min(most, 2 * step) + 1, step) for most in factorization.max_rank)):
        if factorization.layer.saves(form := factorization.form(rank)):
            yield form


def _front(forms: Iterable[Form]) -> list[Form]:
    """Those that no other form beats in parameters, MACs and error, by rising MACs."""
    front: list[Form] = []
    parameters: list[int] = []  # of those seen, rising, with the least error so far, falling
    errors: list[float] = []
    for form in sorted(forms, key=lambda form: (form.macs, form.parameters, form.error)):
        place = bisect_right(parameters, form.parameters)
        if place and errors[place - 1] <= form.error:
            continue
        front.append(form)
        worse = place
        while worse < len(errors) and errors[worse] >= form.error:
            worse += 1
        parameters[place:worse], errors[place:worse] = [form.parameters], [form.error]
    return front


def _spread(front: Sequence[Form]) -> list[Form]:
    """As many as a menu holds, the nearest to even distances in cost: the mean of both currencies' shares."""
    if len(front) <= _MENU:
        return list(front)
    most = front[-1].macs or 1, max(form.parameters for form in front) or 1
    costs = [form.macs / most[0] + form.parameters / most[1] for form in front]
    low, high = min(costs), max(costs)
    wanted = [low + (high - low) * place / (_MENU - 1) for place in range(_MENU)]
    nearest = [min(range(len(front)), key=lambda i: abs(costs[i] - cost)) for cost in wanted]
    return [front[index] for index in dict.fromkeys(nearest)]
