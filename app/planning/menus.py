"""The layers of a model that was inspected, as planning takes them: menus in the place of weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from app.contract.menu import Menu, Offer
from app.contract.summary import LayerInfo
from app.planning.layers import Rank


@dataclass(frozen=True)
class MenuForm:
    """A form on a menu."""

    method: str
    rank: Rank
    parameters: int
    macs: int
    error: float


@dataclass(frozen=True)
class MenuFactorization:
    """A method on a menu: the forms that were kept, and the cost of every other."""

    method: str
    max_rank: Rank
    offer: Offer

    def forms(self, step: int) -> Iterator[MenuForm]:
        """Those on the menu whose ranks are multiples of `step`."""
        for rank, error in self.offer.forms:
            if all(number % step == 0 for number in rank):
                yield self._form(tuple(rank), error)

    def fits(self, rank: Rank) -> bool:
        """Whether a rank has the right number of modes and is within range."""
        return len(rank) == len(self.max_rank) and all(
            1 <= number <= most for number, most in zip(rank, self.max_rank, strict=True)
        )

    def form(self, rank: Rank) -> MenuForm:
        """The form at any rank. Off the menu its error is a bound: the least of the forms whose ranks are no
        larger."""
        within = (
            error
            for known, error in self.offer.forms
            if all(less <= number for less, number in zip(known, rank, strict=True))
        )
        return self._form(rank, min(within, default=1.0))

    def _form(self, rank: Rank, error: float) -> MenuForm:
        offer = self.offer
        return MenuForm(self.method, rank, _cost(offer.parameters, rank), _cost(offer.macs, rank), error)


@dataclass(frozen=True)
class MenuLayer:
    """A layer whose weight is not at hand."""

    name: str
    parameters: int
    macs: int
    reason: str | None
    methods: Mapping[str, MenuFactorization]
    sensitivity: None = None


def menu_layers(layers: Sequence[LayerInfo], menus: Sequence[Menu]) -> list[MenuLayer]:
    """The layers of a model with their menus; those without one stay dense."""
    offers = {menu.layer: menu.offers for menu in menus}
    return [
        MenuLayer(
            name=layer.name,
            parameters=layer.parameters,
            macs=layer.macs,
            reason=layer.reason,
            methods={
                method.value: MenuFactorization(method.value, tuple(layer.max_rank[method]), offer)
                for method, offer in offers.get(layer.name, {}).items()
            },
        )
        for layer in layers
    ]


def _cost(coefficients: Sequence[int], rank: Rank) -> int:
    """Σ_S c_S ∏_{i∈S} r_i."""
    return sum(
        coefficient * prod(number for mode, number in enumerate(rank) if modes >> mode & 1)
        for modes, coefficient in enumerate(coefficients)
    )
