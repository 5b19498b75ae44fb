"""Convolutions split in two, against dense SVDs and against the convolutions themselves."""

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from tests.workers.engine.decomposition.conformance import DecompositionConformance, Ranks, moment
from workers.engine.decomposition.spectrum import relative_tails
from workers.engine.decomposition.splitting import Split, full_rank
from workers.engine.decomposition.whitening import Root, root

_METHODS = {"channel": (0, 1), "mirror": (), "spatial": (0,), "horizontal first": (1,)}


def _weighted(W: Tensor, right: Root | None, left: Root | None) -> Tensor:
    """The kernel in the norm of its channels' second moments."""
    if right is not None:
        W = torch.einsum("oi...,ij->oj...", W, right.L)
    return W if left is None else torch.einsum("oi...,op->pi...", W, left.L)


class TestSpatialSvd(DecompositionConformance):
    axes: ClassVar[tuple[int, ...]] = (0,)
    kernels: ClassVar[tuple[tuple[int, ...], ...]] = ((3, 3), (5, 2), (1, 7), (2, 3, 3))

    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        """Of the input and of the output channels' second moments."""
        return None, None

    def shape(self, draw: Any) -> tuple[int, ...]:
        return draw(st.integers(1, 6)), draw(st.integers(1, 6)), *draw(st.sampled_from(self.kernels))

    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        return (full_rank(shape, self.axes),)

    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        right, left = self.roots(tuple(W.shape))
        return Split(W, self.axes, right=right, left=left).truncated(ranks[0])

    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        return torch.einsum("ri...,or...->oi...", *factors)

    def error(self, W: Tensor, ranks: Ranks) -> float:
        difference = W - self.rebuild(self.factors(W, ranks))
        return float(_weighted(difference, *self.roots(tuple(W.shape))).square().sum())

    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        weighted = _weighted(W, *self.roots(tuple(W.shape)))
        mine = [1, *(2 + axis for axis in self.axes)]
        matrix = weighted.movedim(mine, list(range(len(mine)))).flatten(0, len(mine) - 1).flatten(1)
        return float(torch.linalg.svdvals(matrix)[ranks[0] :].square().sum())


class TestWeightedSpatialSvd(TestSpatialSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return root(moment(shape[1], samples=30)), root(moment(shape[0], samples=30, seed=1))


class TestWeightedSpatialSvdOfFewSamples(TestSpatialSvd):
    def roots(self, shape: tuple[int, ...]) -> tuple[Root | None, Root | None]:
        return root(moment(shape[1], samples=3)), root(moment(shape[0], samples=30, seed=1))


class TestChannelSvd(TestSpatialSvd):
    axes = (0, 1)
    kernels = ((3, 3), (1, 7))


class TestWeightedChannelSvd(TestWeightedSpatialSvd):
    axes = (0, 1)
    kernels = ((3, 3), (1, 7))


class TestMirroredChannelSvd(TestSpatialSvd):
    axes = ()
    kernels = ((3, 3), (5,), (2, 3, 3))


class TestWeightedMirroredChannelSvd(TestWeightedSpatialSvd):
    axes = ()
    kernels = ((3, 3), (5,), (2, 3, 3))


@pytest.mark.parametrize("axes", _METHODS.values(), ids=_METHODS.keys())
def test_the_two_kernels_do_what_one_did_with_the_stride_of_their_axes(axes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(4)
    W = torch.randn(5, 4, 3, 2, generator=generator).double()
    x = torch.randn(2, 4, 9, 11, generator=generator).double()
    stride, padding, dilation = (2, 3), (2, 1), (2, 1)
    first, second = Split(W, axes).truncated(full_rank(tuple(W.shape), axes))

    def only(values: tuple[int, int], mine: bool, neutral: int) -> list[int]:
        return [value if (axis in axes) is mine else neutral for axis, value in enumerate(values)]

    y = x
    for kernel, mine in ((first, True), (second, False)):
        y = conv2d(y, kernel, None, only(stride, mine, 1), only(padding, mine, 0), only(dilation, mine, 1))
    torch.testing.assert_close(y, conv2d(x, W, None, stride, padding, dilation))


@pytest.mark.parametrize("axes", _METHODS.values(), ids=_METHODS.keys())
def test_one_spectrum_tells_the_error_of_every_rank(axes: tuple[int, ...]) -> None:
    W = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(5)).double()
    right, left = root(moment(5, samples=30)), root(moment(4, samples=30, seed=1))
    total = _weighted(W, right, left).square().sum()
    tails = relative_tails(Split(W, axes, right=right, left=left).energies)
    assert len(tails) == full_rank((4, 5, 3, 3), axes) + 1
    for rank in range(1, len(tails)):
        first, second = Split(W, axes, right=right, left=left).truncated(rank)
        rebuilt = torch.einsum("ri...,or...->oi...", first, second)
        error = _weighted(W - rebuilt, right, left).square().sum() / total
        torch.testing.assert_close(tails[rank], error, rtol=1e-6, atol=1e-9)


def test_patches_make_the_least_error_of_the_outputs() -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(8, 3, 6, 6, generator=generator).double().cumsum(-1)
    W = torch.randn(6, 3, 3, 3, generator=generator).double()
    patches = torch.nn.functional.unfold(x, 3).transpose(1, 2).flatten(0, 1)
    roots = {"patches": root(patches.T @ patches), "channels": root(moment(3, samples=30)), "none": None}
    wanted = conv2d(x, W)
    errors = {}
    for name, right in roots.items():
        first, second = Split(W, (0, 1), right=right).truncated(2)
        errors[name] = float((conv2d(conv2d(x, first), second) - wanted).square().sum())
    discarded = Split(W, (0, 1), right=roots["patches"]).energies[2:].sum()
    assert errors["patches"] == pytest.approx(float(discarded))
    assert errors["patches"] < min(errors["none"], errors["channels"])
