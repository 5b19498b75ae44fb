"""Tucker: 1×1 into few channels, a small k×k core, 1×1 back; the kernel's axes factorized too, or not."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.fx import Node

from workers.engine.decomposition.refine import Ends
from workers.engine.decomposition.tucker import SWEEPS, Hosvd, hosvd, unfold
from workers.engine.decomposition.whitening import Root
from workers.engine.graph import surgery
from workers.engine.layers.base import Factors, Site
from workers.engine.layers.conv import chain
from workers.engine.layers.conv.chain import Chain, Stage, pointwise
from workers.engine.layers.conv.factorization import ChainFactorization, ConvFactorization, Fit, Rank
from workers.engine.layers.conv.layer import ConvLayer

aten = torch.ops.aten


def _chain(layer: ConvLayer, rank: Rank) -> Chain:
    channels_out, channels_in = layer.shape[1:3]
    return (
        pointwise(layer, "factor_in", rank[1], channels_in),
        Stage("core", (*rank[:2], *layer.kernel), layer.axes),
        pointwise(layer, "factor_out", channels_out, rank[0]),
    )


def _sweeps(factorization: ConvFactorization) -> int:
    """Of HOOI: where a refinement goes on from there, more lead to the same end."""
    return 1 if factorization.over_patches else SWEEPS


class TuckerFactorization(ChainFactorization):
    """Tucker-2: 1×1 (C_in → r_in), k×k core (r_in → r_out), 1×1 (r_out → C_out)."""

    method = "tucker"
    ends = Ends(outer=2, inner=0)

    @property
    def max_rank(self) -> Rank:
        """(C_out, C_in) of a group."""
        return self.layer.shape[1:3]

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """Every group's kernel, unfolded along its channels."""
        return [[unfold(kernel, mode) for kernel in self.layer.kernels] for mode in (0, 1)]

    def chain(self, rank: Rank) -> Chain:
        """Three stages."""
        return _chain(self.layer, rank)

    def predict(self, rank: Rank) -> float:
        """The discarded energy of the higher-order spectrum."""
        return self._errors[rank[0] - 1][rank[1] - 1]

    def decompose(self, group: int, rank: Rank) -> Fit:
        """The three kernels, in order."""
        ones = tuple(1 for _ in self.layer.axes)
        core, last, first = self._hosvds[group].truncated(rank, _sweeps(self))
        return Fit((first.T.reshape(rank[1], -1, *ones), core, last.reshape(-1, rank[0], *ones)))

    @property
    def _hosvds(self) -> list[Hosvd]:
        return self.layer.memory.once(self.method, self._hosvd)

    def _hosvd(self) -> list[Hosvd]:
        """Every group's, along its channels."""
        roots = (self.layer.weigh().left, self.right(()))
        return [hosvd(kernel, roots) for kernel in self.layer.kernels]

    @cached_property
    def _errors(self) -> list[list[float]]:
        found = self._hosvds
        energies = torch.stack([each.core.square().sum() for each in found])
        shares = energies / energies.sum().clamp_min(torch.finfo(energies.dtype).tiny)
        of_group = torch.stack([each.relative_errors() for each in found])
        errors: list[list[float]] = torch.einsum("g,gab->ab", shares, of_group).tolist()
        return errors


class FullTuckerFactorization(ConvFactorization):
    """Tucker on every mode: the graph multiplies the kernel's factors into the core before the convolutions.

    Ungrouped, not transposed.
    """

    method = "full_tucker"

    @property
    def max_rank(self) -> Rank:
        """(C_out, C_in, *k)."""
        return self.layer.shape[1:]

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """The kernel, unfolded along every mode."""
        [kernel] = self.layer.kernels
        return [[unfold(kernel, mode)] for mode in range(kernel.ndim)]

    def ranks(self, step: int) -> Iterator[Rank]:
        """The grid for channels; every rank of the kernel's axes, which are short."""
        channels = (range(step, most + 1, step) for most in self.max_rank[:2])
        return product(*channels, *(range(1, k + 1) for k in self.layer.kernel))

    def cost(self, rank: Rank) -> tuple[int, int]:
        """The convolutions', with the small core and its factors instead of the core; and the products, at
        every call."""
        weights, macs = chain.cost(self.layer, _chain(self.layer, rank))
        small, kernel = rank[2:], self.layer.kernel
        pair = rank[0] * rank[1]
        stored = pair * (prod(small) - prod(kernel)) + sum(r * k for r, k in zip(small, kernel, strict=True))
        # From the last axis to the first, each product lets one grow from its rank to its size.
        products = sum(prod(small[: axis + 1]) * prod(kernel[axis:]) for axis in self.layer.axes)
        return weights + stored, macs + len(self.layer.sites) * pair * products

    def predict(self, rank: Rank) -> float:
        """The discarded energy of the higher-order spectrum."""
        return float(self._errors[tuple(r - 1 for r in rank)])

    def decompose(self, group: int, rank: Rank) -> Fit:
        """Core (*rank), then per mode a factor (size, rank)."""
        return Fit(self._hosvd.truncated(rank, _sweeps(self)))

    def rebuild(self, rank: Rank, factors: Sequence[Tensor]) -> Tensor:
        """The core times the factor of every mode."""
        whole = factors[0]
        for mode, factor in enumerate(factors[1:]):
            whole = torch.tensordot(whole, factor, dims=([mode], [1])).movedim(-1, mode)
        return whole

    def store(self, rank: Rank, groups: Sequence[Sequence[Tensor]]) -> Mapping[str, Tensor]:
        """The core as it is, channel factors as 1×1 kernels, the kernel's factors as (rank, size)."""
        [(core, last, first, *taps)] = groups
        ones = tuple(1 for _ in self.layer.axes)
        return {
            "core": core,
            "factor_in": first.T.reshape(*first.T.shape, *ones),
            "factor_out": last.reshape(*last.shape, *ones),
            **{f"factor_{axis}": factor.T for axis, factor in enumerate(taps)},
        }

    def unstored(self, rank: Rank, stored: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """Core and factors of the one group, as `decompose` gives them."""
        parts = ("core", "factor_out", "factor_in", *(f"factor_{axis}" for axis in self.layer.axes))
        core, last, first, *taps = (stored[self.layer.path_of(part)] for part in parts)
        return [[core, last.flatten(1), first.flatten(1).T, *(factor.T for factor in taps)]]

    def insert(self, rank: Rank, site: Site, factors: Factors) -> Node:
        """The products, then the convolutions."""
        axes, core = self.layer.axes, factors["core"]
        turned = [0, 1, 1 + len(axes), *range(2, 1 + len(axes))]
        for axis in reversed(axes):
            core = surgery.call(site.module, aten.matmul.default, core, factors[f"factor_{axis}"])
            core = surgery.call(site.module, aten.permute.default, core, turned)
        weights = [factors["factor_in"], core, factors["factor_out"]]
        return chain.insert(self.layer, site, _chain(self.layer, rank), weights)

    @property
    def _hosvd(self) -> Hosvd:
        return self.layer.memory.once(self.method, lambda: hosvd(self.layer.kernels[0], self._roots))

    @cached_property
    def _errors(self) -> Tensor:
        return self._hosvd.relative_errors()

    @property
    def _roots(self) -> list[Root | None]:
        return [self.layer.weigh().left, self.right(()), *(None for _ in self.layer.axes)]
