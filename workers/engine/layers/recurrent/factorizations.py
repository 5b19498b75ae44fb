"""What stacked gate weights may become: a right factor that all share, and a map to the gates of each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from workers.engine.decomposition.cp import cp, cp_errors, full_rank
from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.tucker import Hosvd, hosvd, unfold
from workers.engine.decomposition.whitening import Root
from workers.engine.graph import surgery
from workers.engine.layers.base import Factorization, Rewritten
from workers.engine.layers.matrix import multiplied, whole_svd
from workers.engine.layers.recurrent.layer import GateLayer
from workers.engine.layers.recurrent.maps import CpMap, GateMap, MatrixMap, TuckerMap

_FINEST = 24  # ranks of a long mode that a grid holds at most
# Every CP rank needs a fit of its own: a handful, as shares of the rank that costs what the weights do.
_SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_TUCKER, _CP = "abc,ga,hb,nc->ghn", "gr,hr,nr->ghn"


def factorizations(layer: GateLayer) -> list[Factorization[Any]]:
    """Any stack takes an SVD; gates of equal size are a mode of their own, for Tucker and CP."""
    heights = {len(tensor) // gates for tensor, gates in zip(layer.tensors, layer.gates, strict=True)}
    if len(heights) > 1 or sum(layer.gates) == 1:
        return [Svd(layer)]
    return [Svd(layer), Tucker(layer), Cp(layer)]


class Svd(Factorization[GateLayer]):
    """Truncated SVD: the right factor is the projection, each weight keeps its rows of the left one."""

    method = "svd"
    exact = True

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The rank of the matrix at most."""
        return (min(self.layer.matrix.shape),)

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """The stack."""
        return ([self.layer.matrix],)

    @cached_property
    def _tails(self) -> list[float]:
        tails: list[float] = relative_tails(whole_svd(self.layer).energies).tolist()
        return tails

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """r (rows + n)."""
        layer, (rows, inputs) = self.layer, self.layer.matrix.shape
        macs = rank[0] * (layer.positions * rows + layer.projections * inputs)
        return rank[0] * (rows + inputs), macs

    def error(self, rank: tuple[int, ...]) -> float:
        """The discarded tail of the spectrum."""
        return self._tails[rank[0]]

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """The left factors are the calls' new matrices."""
        layer, weighting = self.layer, self.layer.weigh()
        A, B = whole_svd(layer).truncated(rank[0])
        maps, project = split_svd(layer, A, B, range(len(layer.paths)))
        layer.put(maps, project)
        return Rewritten(multiplied(A, B), weighting.warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The left factors on top of each other, times the right one."""
        layer = self.layer
        return layer.substitutes(merged_svd(layer, stored, range(len(layer.paths))))


def split_svd(layer: GateLayer, A: Tensor, B: Tensor, places: Sequence[int]) -> tuple[list[GateMap], str]:
    """Store the factors of the weights at `places`, stacked: each its rows of A; B beside the first."""
    heights = [len(layer.tensors[place]) for place in places]
    paths = [f"{layer.paths[place]}_left" for place in places]
    for path, left in zip(paths, torch.split(A, heights), strict=True):
        surgery.store(layer.call.module, path, left)
    project = f"{layer.paths[places[0]]}_right"
    surgery.store(layer.call.module, project, B)
    return [MatrixMap((path,)) for path in paths], project


def merged_svd(layer: GateLayer, stored: Mapping[str, Tensor], places: Sequence[int]) -> Tensor:
    """The stack of the weights at `places` that factors stand for, as `split_svd` stored them."""
    A = torch.cat([stored[f"{layer.paths[place]}_left"] for place in places])
    return multiplied(A, stored[f"{layer.paths[places[0]]}_right"])


class _GateModeFactorization(Factorization[GateLayer]):
    """A decomposition of the stack as a tensor (gates of all weights, hidden, inputs)."""

    @property
    def _tensor(self) -> Tensor:
        return self.layer.matrix.reshape(self._shape[0], -1, self._shape[2])

    @property
    def _shape(self) -> tuple[int, int, int]:
        rows, inputs = self.layer.matrix.shape
        gates = sum(self.layer.gates)
        return gates, rows // gates, inputs

    @property
    def _roots(self) -> tuple[Root | None, ...]:
        """The inputs are a mode; the rows, whose gradients a weighting may know, are two."""
        return None, None, self.layer.weigh().right

    def _store(self, factors: Mapping[str, Tensor], gate_factor: Tensor) -> tuple[list[str], list[str]]:
        """Store what all weights share beside the first, each one's rows of the gate factor beside itself."""
        module, paths = self.layer.call.module, self.layer.paths
        shared = [f"{paths[0]}_{part}" for part in factors]
        own = [f"{path}_gates" for path in paths]
        tensors = [*factors.values(), *torch.split(gate_factor, self.layer.gates)]
        for path, tensor in zip([*shared, *own], tensors, strict=True):
            surgery.store(module, path, tensor)
        return shared, own

    def _stored(self, stored: Mapping[str, Tensor], *parts: str) -> tuple[list[Tensor], Tensor]:
        """What `_store` put there: the shared factors, and the whole gate factor."""
        paths = self.layer.paths
        shared = [stored[f"{paths[0]}_{part}"].double() for part in parts]
        return shared, torch.cat([stored[f"{path}_gates"] for path in paths]).double()

    def _merged(self, equation: str, *factors: Tensor) -> Mapping[str, Tensor]:
        whole = torch.einsum(equation, *factors).flatten(0, 1)
        return self.layer.substitutes(whole.to(self.layer.tensors[0].dtype))


class Tucker(_GateModeFactorization):
    """Tucker on all three modes; the inputs' factor is the projection."""

    method = "tucker"

    @property
    def max_rank(self) -> tuple[int, ...]:
        """(gates, hidden, inputs), none larger than the other two allow."""
        sizes = self._shape
        return tuple(min(size, prod(sizes) // size) for size in sizes)

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """The tensor, unfolded along every mode."""
        return [[unfold(self._tensor, mode)] for mode in range(3)]

    def ranks(self, step: int) -> Iterator[tuple[int, ...]]:
        """Every rank of the gates, which are few, and a grid not too fine for the other modes."""
        gates, *long = self.max_rank
        coarse = [-(-most // (_FINEST * step)) * step for most in long]
        return product(range(1, gates + 1), *(range(c, m + 1, c) for c, m in zip(coarse, long, strict=True)))

    @property
    def _hosvd(self) -> Hosvd:
        return self.layer.memory.once("hosvd", lambda: hosvd(self._tensor, self._roots))

    @cached_property
    def _errors(self) -> Tensor:
        return self._hosvd.relative_errors()

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """Core and three factors; the core and the hidden factor work for each weight anew."""
        layer, (gates, hidden, inputs), (a, b, c) = self.layer, self._shape, rank
        weights = a * b * c + gates * a + hidden * b + inputs * c
        each = a * b * c + a * b * hidden
        maps = len(layer.paths) * each + gates * a * hidden
        return weights, layer.positions * maps + layer.projections * inputs * c

    def error(self, rank: tuple[int, ...]) -> float:
        """The discarded energy of the higher-order spectrum."""
        return float(self._errors[tuple(r - 1 for r in rank)])

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Three maps instead of one, for each weight."""
        layer = self.layer
        core, gate, hidden, inputs = self._hosvd.truncated(rank)
        factors = {"factor_in": inputs.T, "core": core.flatten(0, 1), "factor_out": hidden}
        (project, *shared), own = self._store(factors, gate)
        layer.put([TuckerMap((*shared, path), (rank[0], rank[1])) for path in own], project)
        rebuilt = torch.einsum(_TUCKER, core, gate, hidden, inputs)
        return Rewritten(rebuilt.flatten(0, 1), layer.weigh().warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The core times the factor of every mode."""
        (inputs, core, hidden), gate = self._stored(stored, "factor_in", "core", "factor_out")
        return self._merged(_TUCKER, core.reshape(*rank[:2], -1), gate, hidden, inputs.T)


class Cp(_GateModeFactorization):
    """Sums of outer products over gates, hidden and inputs; the inputs' factor is the projection."""

    method = "cp"

    def __init__(self, layer: GateLayer) -> None:
        super().__init__(layer)
        self._errors: dict[int, float] = {}

    @property
    def max_rank(self) -> tuple[int, ...]:
        """No tensor of this shape needs more terms."""
        return (full_rank(self._shape),)

    def ranks(self, step: int) -> Iterator[tuple[int, ...]]:
        """A handful of multiples of `step`."""
        break_even = prod(self._shape) / sum(self._shape)
        aligned = {round(share * break_even / step) * step for share in _SHARES}
        return ((rank,) for rank in sorted(aligned) if 1 <= rank <= self.max_rank[0])

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """r (gates + hidden + inputs); the hidden factor works for every gate anew."""
        layer, (gates, hidden, inputs) = self.layer, self._shape
        macs = rank[0] * (layer.positions * gates * hidden + layer.projections * inputs)
        return rank[0] * (gates + hidden + inputs), macs

    def error(self, rank: tuple[int, ...]) -> float:
        """What a few sweeps reach: the fit comes to that or less."""
        if rank[0] not in self._errors:
            [self._errors[rank[0]]] = cp_errors(self._tensor, rank, roots=self._roots)
        return self._errors[rank[0]]

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """Two maps instead of one, for each weight."""
        layer, found = self.layer, cp(self._tensor, rank[0], roots=self._roots)
        gate, hidden, inputs = found.factors
        (project, *shared), own = self._store({"factor_in": inputs.T, "factor_out": hidden}, gate)
        layer.put([CpMap((*shared, path)) for path in own], project)
        rebuilt = torch.einsum(_CP, gate, hidden, inputs)
        return Rewritten(rebuilt.flatten(0, 1), layer.weigh().warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The sum of outer products."""
        (inputs, hidden), gate = self._stored(stored, "factor_in", "factor_out")
        return self._merged(_CP, gate, hidden, inputs.T)
