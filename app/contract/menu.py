"""What inspection leaves of a layer's weight for plans: what it may become, what that costs and loses."""

from app.contract.base import Contract
from app.contract.spec import Decomposition


class Offer(Contract):
    """One method on a menu.

    `forms` are (rank, squared relative error in the plain norm). Parameters and MACs of a layer in any form
    are Σ_S c_S ∏_{i∈S} r_i over the sets S of modes of its rank r: the coefficients c_S stand in the order of
    the numbers whose bit i says whether mode i is in S.
    """

    parameters: list[int]
    macs: list[int]
    forms: list[tuple[list[int], float]]


class Menu(Contract):
    """The forms that a layer may take, by method."""

    layer: str
    offers: dict[Decomposition, Offer]
