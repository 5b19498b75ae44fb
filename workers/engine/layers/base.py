"""What every layer offers: its cost, the factorizations it may take, and the surgery that puts one in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor
from torch.fx import GraphModule, Node

from workers.engine.graph import surgery
from workers.engine.layers.weighting import PLAIN, Weighting
from workers.engine.memory import Memory


@dataclass(frozen=True)
class Form:
    """One way to write a layer: a method at a rank.

    `parameters` and `macs` (batch 1) are the whole layer's in this form; `error` is the predicted
    ‖W − Ŵ‖² / ‖W‖² in the layer's weighting, in [0, 1].
    """

    method: str
    rank: tuple[int, ...]
    parameters: int
    macs: int
    error: float


@dataclass(frozen=True)
class Rewritten:
    """What went into the graph: the dense weight Ŵ that the factors stand for, shaped like the weight, and
    what the user should hear about the fit."""

    weight: Tensor
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """Where a weight is used: the graph, the call, its weight and bias, and the shapes that flow through
    it."""

    module: GraphModule
    node: Node
    weight: Node
    bias: Node | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The weight's path without its leaf: the module's name in the user's own network."""
        return str(self.weight.target).removesuffix(".weight")

    @property
    def W(self) -> Tensor:  # noqa: N802 -- the matrix keeps its name
        """The weight, detached, not copied."""
        return surgery.tensor_of(self.module, self.weight).detach()

    @property
    def arguments(self) -> dict[str, Any]:
        """The call's arguments by name."""
        return surgery.arguments(self.node)


Factors = Mapping[str, Node]


class Layer(ABC):
    """A weight and every call that uses it.

    `reason` says why the layer must stay dense; None where it may be factorized. `weigh` gives what the
    calibration knows about this weight; it is called when needed and its result not kept, because it is
    large. `memory` is for what follows from the weight and its weighting alone, whatever the rank. Where
    `polished` is false, factors that are no optimum of the weighting's norm are left as they are: refining
    them takes most of the time. `sensitivity` predicts the whole network's divergence from a form's error,
    where that was measured.

    Where the inputs are `one_hot`, `vectors` gives how often each occurred, (n,), and their second moment is
    that, as a diagonal.
    """

    kind: str
    one_hot: ClassVar[bool] = False

    def __init__(self, *sites: Site, reason: str | None = None) -> None:
        self.sites = sites
        self.reason = reason
        self.weigh: Callable[[], Weighting] = lambda: PLAIN
        self.memory = Memory()
        self.polished = True
        self.sensitivity: Callable[[float], float] | None = None

    @property
    def site(self) -> Site:
        """The first call."""
        return self.sites[0]

    @property
    def name(self) -> str:
        """The layer's name in the user's own network."""
        return self.site.name

    @property
    def weight(self) -> Tensor:
        """The dense weight, shaped as a rewriting gives the one that it stands for."""
        return self.site.W

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for every other kind."""
        return 1

    @cached_property
    def parameters(self) -> int:
        """The weight, and the biases that its calls add, each once."""
        biases = {site.bias.target: site for site in self.sites if site.bias is not None}
        sizes = (surgery.tensor_of(s.module, s.bias).numel() for s in biases.values() if s.bias is not None)
        return self.site.W.numel() + sum(sizes)

    @cached_property
    def bias_parameters(self) -> int:
        """How many of the parameters are biases: they stay as they are."""
        return self.parameters - self.site.W.numel()

    @property
    @abstractmethod
    def macs(self) -> int:
        """Multiply-accumulates of the dense layer for batch 1, all calls together."""

    @cached_property
    def methods(self) -> "dict[str, Factorization[Any]]":
        """The factorizations that the layer may take, by method; none where it must stay dense."""
        if self.reason is not None:
            return {}
        return {factorization.method: factorization for factorization in self.factorizations()}

    def factorizations(self) -> "tuple[Factorization[Any], ...]":
        """What `methods` holds."""
        return ()

    @property
    def matrix(self) -> Tensor:
        """The weight as (outputs, inputs): the shape that a weighting is for."""
        return self.site.W.flatten(1)

    @property
    def observed_sites(self) -> Sequence[Site]:
        """The calls that the vectors are observed at."""
        return self.sites

    @property
    def observed(self) -> int:
        """The length of the vectors that are observed."""
        return self.matrix.shape[1]

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The vectors x that W multiplied in one call, from the values of the call's arguments: (positions,
        n)."""
        raise NotImplementedError(f"nothing is observed of a {self.kind} layer")

    def transposed_vectors(self, arguments: Mapping[str, Any]) -> Tensor | None:
        """The vectors that Wᵀ multiplied in one call, (positions, m): their second moment weights W from the
        left, as that of gradients does. None for a call that multiplies by W itself."""
        return None

    def gradients(self, gradient: Tensor) -> Tensor:
        """A gradient with respect to the call's output as (positions, m)."""
        raise NotImplementedError(f"nothing is observed of a {self.kind} layer")

    @property
    def tied(self) -> bool:
        """Whether some calls multiply by Wᵀ: what they multiply then stands in for gradients."""
        return False

    @property
    def takes_mean(self) -> bool:
        """Whether a change of the mean output can be taken up: every call adds a bias that is its own."""
        return all(site.bias is not None and len(site.bias.users) == 1 for site in self.sites)

    def correct(self, approximation: Tensor) -> None:
        """Add (W − Ŵ) E[x] to the biases, where the weighting is centred: exact for the mean output.

        `approximation` is Ŵ as (outputs, inputs).
        """
        mean = self.weigh().mean
        if mean is None:
            return
        shift = (self.matrix.double() - approximation.double()) @ mean
        for site in self.sites:
            if site.bias is not None:
                bias = surgery.tensor_of(site.module, site.bias)
                bias.data += shift.to(bias.dtype)

    def substitutes(self, weight: Tensor) -> Mapping[str, Tensor]:
        """The tensors to put in the place of the network's own, by path, for a dense `weight` to take
        effect."""
        return {str(site.weight.target): weight for site in self.sites}

    def saves(self, form: Form) -> bool:
        """Whether a form is cheaper than dense in both currencies, where there are MACs to save: nothing is
        ever made larger."""
        return form.parameters < self.parameters and (self.macs == 0 or form.macs < self.macs)

    def path_of(self, part: str) -> str:
        """Where a factor is stored."""
        return f"{self.site.weight.target}_{part}"

    def replace(self, factors: Mapping[str, Tensor], insert: Callable[[Site, Factors], Node]) -> None:
        """Store factors beside the weight (`head.weight_left`), once, and put the calls that `insert` makes
        in the place of every call."""
        module = self.site.module
        paths = {part: self.path_of(part) for part in factors}
        for part, tensor in factors.items():
            surgery.store(module, paths[part], tensor)
        for site in self.sites:

            def build(site: Site = site) -> Node:
                return insert(site, {part: module.graph.get_attr(path) for part, path in paths.items()})

            surgery.replace(module, site.node, build)


L = TypeVar("L", bound=Layer)


class Factorization(ABC, Generic[L]):
    """One method applied to one layer: which ranks it takes, what each costs, and how it is put in."""

    method: ClassVar[str]
    exact: ClassVar[bool] = False
    """Whether no factors of a rank come closer than those that `rewrite` computes, without iterating: of
    convolutions, in the norm of whole patches."""

    def __init__(self, layer: L) -> None:
        self.layer = layer
        self._known: dict[tuple[int, Callable[[], Weighting]], list[Form]] = {}

    @property
    @abstractmethod
    def max_rank(self) -> tuple[int, ...]:
        """The largest rank of every mode."""

    @abstractmethod
    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """Weights that the factors hold, and multiply-accumulates of all calls for batch 1."""

    @abstractmethod
    def error(self, rank: tuple[int, ...]) -> float:
        """Predicted ‖W − Ŵ‖² / ‖W‖² in the layer's weighting."""

    @abstractmethod
    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Put the form at this rank into the graph, in place."""

    @abstractmethod
    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The dense tensors, by path, that factors of this rank come to. `stored` has these by path, as
        `rewrite` stored them and whatever they have become since."""

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """For each number of the rank the matrices, one a group, whose own rank it bounds. Empty where the
        rank is that of no matrix."""
        return ()

    def form(self, rank: tuple[int, ...]) -> Form:
        """The form at one rank within `max_rank`."""
        weights, macs = self.cost(rank)
        return Form(self.method, rank, weights + self.layer.bias_parameters, macs, self.error(rank))

    def ranks(self, step: int) -> Iterator[tuple[int, ...]]:
        """The grid of ranks that are multiples of `step` in every mode."""
        return product(*(range(step, most + 1, step) for most in self.max_rank))

    def forms(self, step: int) -> Sequence[Form]:
        """Every form on the grid that costs less than the dense layer, under the weighting that it knows."""
        key = step, self.layer.weigh
        if key not in self._known:
            self._known[key] = [
                form for rank in self.ranks(step) if self.layer.saves(form := self.form(rank))
            ]
        return self._known[key]

    def fits(self, rank: tuple[int, ...]) -> bool:
        """Whether a rank has the right number of modes and is within range."""
        return len(rank) == len(self.max_rank) and all(
            1 <= r <= most for r, most in zip(rank, self.max_rank, strict=True)
        )


def relative_error(W: Tensor, approximation: Tensor) -> float:
    """‖W − Ŵ‖ / ‖W‖, 0 for a zero weight."""
    norm = W.double().norm()
    return float((W.double() - approximation.double()).norm() / norm) if norm > 0 else 0.0
