"""A convolution as two: truncated SVDs that share the kernel's axes out between them.

A kernel (C_out, C_in, k_1, …) is laid out as a matrix: outputs and some of the kernel's axes against inputs
and the other axes. Its truncation is two convolutions with r channels in between. Which axes the first one
takes says which method it is; `axes` counts them from 0:

- all of them: channel SVD (Zhang et al. 2015). k×k from C_in into r, then 1×1 into C_out.
- none: its mirror. 1×1 from C_in into r, then k×k into C_out.
- the first: spatial SVD (Jaderberg et al. 2014). k_h×1 from C_in into r, then 1×k_w into C_out.

Stride, padding and dilation go along with their axis.
"""

from collections.abc import Collection
from math import prod

from torch import Tensor

from workers.engine.decomposition.svd import Svd
from workers.engine.decomposition.whitening import Root


class Split:
    """A kernel (C_out, C_in, *k) as those of two convolutions in a row: one truncation for every rank.

    Args:
        W: the kernel.
        axes: which of its axes the first convolution takes; the second takes the others.
        right: the root of the second moment of the first convolution's patches, over C_in and `axes`
            flattened, or of the input channels alone. Over whole patches of k the error is the layer's own.
        left: the root of the output channels' gradient second moment.

    `energies` are what every rank keeps: the squared singular values, largest first, float64. Their
    `relative_tails` are the squared relative errors, exactly, for all ranks at once.
    """

    def __init__(
        self, W: Tensor, axes: Collection[int], *, right: Root | None = None, left: Root | None = None
    ) -> None:
        self._shape, self._axes = W.shape, axes
        self._svd = Svd(matrix(W, axes), right, left)

    @property
    def energies(self) -> Tensor:
        """(`full_rank`,)."""
        return self._svd.energies

    def truncated(self, rank: int) -> tuple[Tensor, Tensor]:
        """The two kernels that come closest to the one: in the norm of the roots no two such come closer.

        Args:
            rank: 1 … `full_rank(W.shape, axes)`, where nothing is lost.

        Returns:
            (rank, C_in, *k with 1 for the other axes) and (C_out, rank, *k with 1 for `axes`), in W's dtype,
            on its device, balanced.

        Raises:
            ValueError: the rank is out of range.
        """
        channels_out, channels_in, *kernel = self._shape
        sizes, axes = list(enumerate(kernel)), self._axes
        A, B = self._svd.truncated(rank)
        first = B.reshape(rank, channels_in, *(k if axis in axes else 1 for axis, k in sizes))
        second = A.T.reshape(rank, channels_out, *(1 if axis in axes else k for axis, k in sizes))
        return first, second.transpose(0, 1).contiguous()


def full_rank(shape: tuple[int, ...], axes: Collection[int]) -> int:
    """The largest rank that a kernel of this shape accepts."""
    channels_out, channels_in, *kernel = shape
    first = prod(kernel[axis] for axis in axes)
    return min(channels_in * first, channels_out * prod(kernel) // first)


def matrix(W: Tensor, axes: Collection[int]) -> Tensor:
    """A kernel (C_out, C_in, *k) laid out as (C_out · the second's axes, C_in · the first's): what `split`
    truncates."""
    mine = [2 + axis for axis in sorted(axes)]
    others = [axis for axis in range(2, W.ndim) if axis not in mine]
    rows = W.shape[0] * prod(W.shape[axis] for axis in others)
    return W.permute(0, *others, 1, *mine).reshape(rows, -1)
