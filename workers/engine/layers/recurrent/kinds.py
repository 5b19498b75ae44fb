"""The weights of recurrent calls as layers, parted by the vector that they multiply."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.svd import Svd
from workers.engine.decomposition.whitening import root, whitened
from workers.engine.layers.base import Factorization, Rewritten, Site
from workers.engine.layers.matrix import multiplied
from workers.engine.layers.recurrent.call import Call, Direction
from workers.engine.layers.recurrent.cells import Recurrence
from workers.engine.layers.recurrent.factorizations import factorizations, merged_svd, split_svd
from workers.engine.layers.recurrent.layer import GateLayer
from workers.engine.layers.recurrent.maps import GateMap


class InputLayer(GateLayer):
    """What multiplies a call's inputs: both directions' weights, which share the right factor."""

    def __init__(self, call: Call) -> None:
        params = [direction.params for direction in call.directions]
        super().__init__([call], [own[0] for own in params], [bias for own in params for bias in own[2:3]])

    @property
    def gates(self) -> list[int]:
        """The cell's, for each direction."""
        return [self.call.gates for _ in self.call.directions]

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """Those of any stack of gates."""
        return tuple(factorizations(self))

    def put(self, maps: Sequence[GateMap], project: str) -> None:
        """Before the call, or before its loops."""
        self.call.feed(maps, project)

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The input of every step."""
        x: Tensor = arguments["input"]
        return x.flatten(0, -2)


class HiddenLayer(GateLayer):
    """What multiplies one direction's hidden state: its own matrix, and the input matrices of the next layer
    where that is the only one to read the sequence. The projection is then shared (Prabhavalkar et al. 2016):
    the loop hands it on instead of the state.
    """

    def __init__(self, direction: Direction, following: Call | None) -> None:
        own = direction.params
        after = [] if following is None else [each.params for each in following.directions]
        weights = [own[1], *(params[0] for params in after)]
        biases = [*own[3:4], *(bias for params in after for bias in params[2:3])]
        calls = [direction.call, *([] if following is None else [following])]
        super().__init__(calls, weights, biases)
        self.direction = direction
        self.following = following

    @property
    def projections(self) -> int:
        """The state of every step, the initial one included."""
        return self.positions + self.call.batch

    @property
    def gates(self) -> list[int]:
        """The cell's, then those of each direction of the next layer."""
        following = self.following
        return [
            self.call.gates,
            *([] if following is None else [following.gates for _ in following.directions]),
        ]

    def put(self, maps: Sequence[GateMap], project: str) -> None:
        """Inside of the loop, and before the next layer."""
        self.direction.recur(Recurrence(maps[0], project, emits_projection=self.following is not None))
        if self.following is not None:
            self.following.feed(maps[1:])

    def factorizations(self) -> tuple[Factorization[Any], ...]:
        """Beside those of the whole, that of the next layer's weights alone, which needs no loop."""
        found = factorizations(self)
        return tuple(found) if self.following is None else (*found, InputSvd(self))

    @property
    def observed_sites(self) -> Sequence[Site]:
        """The next layer's call, which takes these states as they are; else the call itself."""
        return self.sites[-1:]

    def vectors(self, arguments: Mapping[str, Any]) -> Tensor:
        """The hidden state after every step: what the next layer multiplies and, a step later, this one."""
        if self.following is not None:
            x: Tensor = arguments["input"]
            return x.flatten(0, -2)
        results = self.site.node.target(**arguments)  # type: ignore[operator]  # it is an operator's call
        states: Tensor = results[0].flatten(0, -2).chunk(len(self.call.directions), -1)[self.direction.place]
        return states


class InputSvd(Factorization[HiddenLayer]):
    """Truncated SVD of the next layer's input matrices alone. The recurrence stays dense, and with it both
    calls stay torch's own: nothing runs as a loop."""

    method = "input_svd"
    exact = True

    @cached_property
    def _matrix(self) -> Tensor:
        return torch.cat(self.layer.tensors[1:])

    @property
    def max_rank(self) -> tuple[int, ...]:
        """The rank of the next layer's matrix at most."""
        return (min(self._matrix.shape),)

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """The next layer's matrix."""
        return ([self._matrix],)

    def cost(self, rank: tuple[int, ...]) -> tuple[int, int]:
        """The hidden matrix, and r (rows + n) for the other."""
        weights = self.layer.tensors[0].numel() + rank[0] * sum(self._matrix.shape)
        return weights, self.layer.positions * weights

    @property
    def _svd(self) -> Svd:
        return self.layer.memory.once(self.method, self._decompose)

    def _decompose(self) -> Svd:
        """In the norm of the weighting's rows for the next layer."""
        weighting, own = self.layer.weigh(), len(self.layer.tensors[0])
        left = None if weighting.left is None else weighting.left.L[own:]
        return Svd(self._matrix, weighting.right, None if left is None else root(left @ left.T))

    @cached_property
    def _tails(self) -> list[float]:
        weighting = self.layer.weigh()
        whole = whitened(self.layer.matrix, weighting.right, weighting.left).square().sum()
        energies = self._svd.energies
        tails: list[float] = (relative_tails(energies) * energies.sum() / whole.clamp_min(1e-300)).tolist()
        return tails

    def error(self, rank: tuple[int, ...]) -> float:
        """The discarded tail of the next layer's spectrum, of the energy of the whole stack."""
        return self._tails[rank[0]]

    def rewrite(self, rank: tuple[int, ...]) -> Rewritten:
        """A linear call before the next layer."""
        layer = self.layer
        A, B = self._svd.truncated(rank[0])
        maps, project = split_svd(layer, A, B, range(1, len(layer.paths)))
        if layer.following is not None:
            layer.following.feed(maps, project)
        return Rewritten(torch.cat([layer.tensors[0], multiplied(A, B)]), layer.weigh().warnings)

    def merge(self, rank: tuple[int, ...], stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The hidden matrix as it is, and what the factors stand for."""
        layer = self.layer
        rebuilt = merged_svd(layer, stored, range(1, len(layer.paths)))
        return layer.substitutes(torch.cat([stored[layer.paths[0]], rebuilt]))
