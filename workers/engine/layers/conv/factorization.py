"""What the methods for convolutions share: every group alike, in the norm of the data."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.refine import Ends, refine
from workers.engine.decomposition.whitening import Root, whitened
from workers.engine.layers.base import Factorization, Factors, Rewritten, Site
from workers.engine.layers.conv import chain
from workers.engine.layers.conv.chain import Chain
from workers.engine.layers.conv.layer import ConvLayer, side_by_side
from workers.engine.layers.conv.patches import marginal
from workers.engine.layers.weighting import Weighting

_SWEEPS, _STEPS = 2, 2  # of refinement: more gain little

Rank = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """One group's factors, and what the user should hear about them."""

    factors: Sequence[Tensor]
    warnings: tuple[str, ...] = ()


class ConvFactorization(Factorization[ConvLayer]):
    """A method applied to every group of a convolution with one common rank.

    A decomposition knows channels, some also the taps of their own axes. Where the weighting is over whole
    patches it is the start of a refinement in their norm, and the errors it predicts are scaled so that they
    are right at one rank. `ends` are the factors that it may be quick about.
    """

    ends = Ends()

    @abstractmethod
    def decompose(self, group: int, rank: Rank) -> Fit:
        """One group's factors."""

    @abstractmethod
    def rebuild(self, rank: Rank, factors: Sequence[Tensor]) -> Tensor:
        """The kernel that one group's factors stand for: linear in each."""

    @abstractmethod
    def store(self, rank: Rank, groups: Sequence[Sequence[Tensor]]) -> Mapping[str, Tensor]:
        """What the graph holds, from every group's factors."""

    @abstractmethod
    def unstored(self, rank: Rank, stored: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """Every group's factors, from what the graph holds by path."""

    @abstractmethod
    def insert(self, rank: Rank, site: Site, factors: Factors) -> Node:
        """Insert the calls that stand for one call."""

    @abstractmethod
    def predict(self, rank: Rank) -> float:
        """The squared relative error of `decompose`, in the norm that it minimises."""

    def error(self, rank: Rank) -> float:
        """Predicted for the start of the refinement, which lowers it."""
        return min(self.predict(rank) * self._scale, 1.0)

    def rewrite(self, rank: Rank) -> Rewritten:
        """The factors of every group, refined; stored together and put in the place of every call."""
        layer, weighting = self.layer, self.layer.weigh()
        fits = [self._refined(group, rank, weighting) for group in range(layer.groups)]
        kernels = [self.rebuild(rank, fit.factors) for fit in fits]
        weight = layer.stored(kernels, layer.axes)
        layer.correct(side_by_side(torch.stack(kernels)))
        factors = self.store(rank, [fit.factors for fit in fits])
        layer.replace(factors, lambda site, nodes: self.insert(rank, site, nodes))
        warnings = dict.fromkeys(warning for fit in fits for warning in fit.warnings)
        return Rewritten(weight, (*weighting.warnings, *warnings))

    def merge(self, rank: Rank, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Every group's kernel."""
        layer = self.layer
        groups = [[factor.double() for factor in factors] for factors in self.unstored(rank, stored)]
        kernels = [self.rebuild(rank, factors) for factors in groups]
        return layer.substitutes(layer.stored(kernels, layer.axes).to(layer.weight.dtype))

    def _refined(self, group: int, rank: Rank, weighting: Weighting) -> Fit:
        start = self.decompose(group, rank)
        if self.exact or not self.layer.polished or not self.over_patches:
            return start
        refined = refine(
            start.factors,
            lambda factors: self.rebuild(rank, factors),
            self.layer.kernels[group],
            right=weighting.right,
            left=weighting.left,
            ends=self.ends,
            sweeps=_SWEEPS,
            steps=_STEPS,
        )
        return replace(start, factors=refined)

    @cached_property
    def _scale(self) -> float:
        """How the error over patches compares with the one predicted, at one rank in the middle."""
        layer, weighting = self.layer, self.layer.weigh()
        if self.exact or not self.over_patches:
            return 1.0
        rank = tuple((most + 2) // 3 for most in self.max_rank)
        fits = (self.decompose(group, rank) for group in range(layer.groups))
        kernels = torch.stack([self.rebuild(rank, fit.factors) for fit in fits])
        W, right, left = layer.matrix.double(), weighting.right, weighting.left
        lost = whitened(W - side_by_side(kernels).double(), right, left).square().sum()
        predicted = self.predict(rank) * whitened(W, right, left).square().sum()
        return float(lost / predicted) if predicted > 0 else 1.0

    @cached_property
    def over_patches(self) -> bool:
        """Whether the weighting knows the inputs' patches, and not only their channels."""
        right = self.layer.weigh().right
        return right is not None and len(right.L) > self.layer.shape[2]

    def right(self, axes: Sequence[int]) -> Root | None:
        """The inputs' root over channels and, where the weighting has them, the taps of `axes`."""
        weighting = self.layer.weigh()
        whole = weighting.right
        if whole is None or not self.over_patches:
            return whole
        return self.layer.memory.once(("right", *axes), lambda: marginal(whole, self.layer.kernel, axes))


class ChainFactorization(ConvFactorization):
    """A method whose factors are the kernels of convolutions in a row."""

    @abstractmethod
    def chain(self, rank: Rank) -> Chain:
        """The convolutions of one group at this rank; `decompose` gives their kernels."""

    def cost(self, rank: Rank) -> tuple[int, int]:
        """All convolutions'."""
        return chain.cost(self.layer, self.chain(rank))

    def rebuild(self, rank: Rank, factors: Sequence[Tensor]) -> Tensor:
        """The convolutions in one."""
        return chain.compose(self.chain(rank), factors)

    def store(self, rank: Rank, groups: Sequence[Sequence[Tensor]]) -> Mapping[str, Tensor]:
        """One weight for each convolution, the groups stacked."""
        stages = self.chain(rank)
        return {
            stage.name: self.layer.stored(kernels, stage.axes)
            for stage, kernels in zip(stages, zip(*groups, strict=True), strict=True)
        }

    def unstored(self, rank: Rank, stored: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """The kernels of each convolution, the groups apart."""
        layer = self.layer
        kernels = [
            layer.unstored(stored[layer.path_of(stage.name)], stage.axes) for stage in self.chain(rank)
        ]
        return list(zip(*kernels, strict=True))

    def insert(self, rank: Rank, site: Site, factors: Factors) -> Node:
        """The convolutions in a row."""
        stages = self.chain(rank)
        return chain.insert(self.layer, site, stages, [factors[stage.name] for stage in stages])
