"""One truncation, two convolutions: spatial SVD, channel SVD and its mirror, and the SVD of a 1×1."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from workers.engine.decomposition.refine import Ends
from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.splitting import Split, full_rank, matrix
from workers.engine.layers.conv.chain import Chain, Stage
from workers.engine.layers.conv.factorization import ChainFactorization, Fit, Rank


class SplitFactorization(ChainFactorization):
    """C_in → r → C_out: the first convolution takes the axes `first`, the second the others."""

    ends = Ends(inner=0)

    @property
    @abstractmethod
    def first(self) -> tuple[int, ...]:
        """The kernel's axes that the first convolution takes."""

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """A truncation in the norm of whole patches is the best where the first convolution takes them."""
        return self.first == self.layer.axes

    @property
    def max_rank(self) -> Rank:
        """Of the kernel laid out as a matrix."""
        return (full_rank(self.layer.shape[1:], self.first),)

    def unfoldings(self) -> Sequence[Sequence[Tensor]]:
        """Every group's kernel, laid out as a matrix."""
        return ([matrix(kernel, self.first) for kernel in self.layer.kernels],)

    def chain(self, rank: Rank) -> Chain:
        """Two stages."""
        channels_out, channels_in = self.layer.shape[1:3]
        sizes = list(enumerate(self.layer.kernel))
        others = tuple(axis for axis in self.layer.axes if axis not in self.first)
        return (
            Stage(
                "first", (rank[0], channels_in, *(k if a in self.first else 1 for a, k in sizes)), self.first
            ),
            Stage(
                "second", (channels_out, rank[0], *(1 if a in self.first else k for a, k in sizes)), others
            ),
        )

    def predict(self, rank: Rank) -> float:
        """The discarded tail of the spectrum."""
        return self._tails[rank[0]]

    def decompose(self, group: int, rank: Rank) -> Fit:
        """The two kernels, in order."""
        return Fit(self._splits[group].truncated(rank[0]))

    @property
    def _splits(self) -> list[Split]:
        return self.layer.memory.once(self.method, self._split)

    def _split(self) -> list[Split]:
        """Every group's."""
        right, left = self.right(self.first), self.layer.weigh().left
        return [Split(kernel, self.first, right=right, left=left) for kernel in self.layer.kernels]

    @cached_property
    def _tails(self) -> list[float]:
        # Every group keeps as many: the sum of the sorted spectra has the sum of their tails.
        energies = torch.stack([split.energies for split in self._splits]).sum(0)
        tails: list[float] = relative_tails(energies).tolist()
        return tails


class ChannelSvdFactorization(SplitFactorization):
    """k×k into r channels, then 1×1 (Zhang et al. 2015)."""

    method = "channel_svd"

    @property
    def first(self) -> tuple[int, ...]:
        """All axes."""
        return self.layer.axes


class ChannelSvdInFactorization(SplitFactorization):
    """1×1 into r channels, then k×k."""

    method = "channel_svd_in"
    first = ()


class SpatialSvdFactorization(SplitFactorization):
    """k_h×1 into r channels, then 1×k_w (Jaderberg et al. 2014); of two axes only."""

    method = "spatial_svd"
    first = (0,)


class PointwiseSvdFactorization(SplitFactorization):
    """The SVD of a 1×1 kernel. The stride goes where fewer pixels are left for the other call."""

    method = "svd"
    exact = True

    @property
    def first(self) -> tuple[int, ...]:
        """With the call that comes first, or last where transposed."""
        return () if self.layer.transposed else self.layer.axes
