"""Convolutions in the norm of the data: what the calibration knows lowers the error that counts."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from tests.workers.engine.networks import image_network, seeded
from workers.engine.decomposition.whitening import root, whitened
from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.layers.conv.patches import marginal
from workers.engine.layers.find import find
from workers.engine.layers.weighting import PLAIN, Weighting

METHODS = ["tucker", "channel_svd", "channel_svd_in", "spatial_svd", "cp", "full_tucker"]
SIZE = 9


def smooth(batch: int, channels: int) -> Tensor:
    """Images whose pixels resemble their neighbours, and whose channels differ in size."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(batch, channels, SIZE, SIZE, generator=generator).cumsum(-1).cumsum(-2)
    return x * torch.logspace(0, -1.5, channels)[:, None, None] + 0.3


def network_of(channels: int = 8, outputs: int = 10, *, groups: int = 1) -> Network:
    seeded()
    return image_network(nn.Conv2d(channels, outputs, 3, padding=1, groups=groups), channels, size=SIZE)


def weighting(x: Tensor, channels: int, *, centred: bool = False, left: bool = True) -> Weighting:
    """Of the patches of all groups, and of some gradients that favour a direction."""
    X = unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, channels * 9).double()
    mean = X.mean(0) if centred else None
    G = torch.randn(200, 10, generator=torch.Generator().manual_seed(8)) * torch.logspace(0, -1, 10)
    spread = X.T @ X / len(X) - (0 if mean is None else torch.outer(mean, mean))
    return Weighting(root(spread), root((G.T @ G).double() / 200) if left else None, mean)


def lost(layer: Layer, approximation: Tensor, by: Weighting) -> float:
    """‖Rᵀ (W − Ŵ) L‖² / ‖Rᵀ W L‖²."""
    W = layer.matrix
    error = whitened(W - approximation.flatten(1), by.right, by.left).square().sum()
    return float(error / whitened(W, by.right, by.left).square().sum())


def third(most: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(min(rank, 2), rank // 3) for rank in most)


def fitted(network: Network, method: str, by: Weighting) -> tuple[Layer, float, Tensor]:
    """The dense layer, the predicted error, and what the form is equal to."""
    copy = network.copy()
    [layer], [dense] = find(copy), find(network)
    layer.weigh = lambda: by
    factorization = layer.methods[method]
    rank = third(factorization.max_rank)
    return dense, factorization.error(rank), factorization.rewrite(rank).weight


@pytest.mark.parametrize("method", METHODS)
def test_patches_lower_the_error_of_the_output(method: str) -> None:
    network, by = network_of(), weighting(smooth(20, 8), 8)
    dense, predicted, informed = fitted(network, method, by)
    _, _, blind = fitted(network, method, PLAIN)
    error = lost(dense, informed, by)
    assert error < 0.9 * lost(dense, blind, by)
    assert error <= predicted * (1 + 1e-6)


def test_channel_svd_reaches_its_predicted_error_which_is_the_least_there_is() -> None:
    network, by = network_of(), weighting(smooth(20, 8), 8)
    dense, predicted, informed = fitted(network, "channel_svd", by)
    weighted = whitened(dense.matrix, by.right, by.left)
    energies = torch.linalg.svdvals(weighted).square()
    assert predicted == pytest.approx(float(energies[3:].sum() / energies.sum()), rel=1e-6)
    assert lost(dense, informed, by) == pytest.approx(predicted, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_channels_alone_lower_the_error_too(method: str) -> None:
    network, patches = network_of(), weighting(smooth(20, 8), 8, left=False)
    assert patches.right is not None
    by = Weighting(marginal(patches.right, (3, 3), ()))
    dense, predicted, informed = fitted(network, method, by)
    _, _, blind = fitted(network, method, PLAIN)
    assert lost(dense, informed, by) < 0.9 * lost(dense, blind, by)
    assert lost(dense, informed, by) <= predicted * (1 + 1e-5)


@pytest.mark.parametrize("method", ["tucker", "channel_svd", "channel_svd_in", "spatial_svd"])
def test_groups_share_one_weighting(method: str) -> None:
    network = network_of(16, 20, groups=2)
    by = weighting(smooth(20, 16).reshape(-1, 8, SIZE, SIZE), 8)
    errors = []
    for used in (by, PLAIN):
        dense, _, weight = fitted(network, method, used)
        errors.append(
            sum(
                float(whitened(D.flatten(1), by.right, by.left).square().sum())
                for D in (dense.site.W - weight).chunk(2)
            )
        )
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_bias_takes_up_the_mean_of_the_output(method: str) -> None:
    x = smooth(20, 8)
    network = network_of()
    copy = network.copy()
    [layer] = find(copy)
    layer.weigh = lambda: weighting(x, 8, centred=True)
    assert layer.takes_mean
    factorization = layer.methods[method]
    factorization.rewrite(third(factorization.max_rank))
    surgery.prune(copy.module)
    with torch.no_grad():
        wanted, found = network(x), copy(x)
    assert float((found - wanted).square().mean()) > 1e-3
    torch.testing.assert_close(found.mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_a_marginal_is_the_mean_over_the_taps_left_out() -> None:
    x = smooth(20, 3)
    right = weighting(x, 3).right
    assert right is not None
    C = (right.L @ right.L.T).reshape(3, 3, 3, 3, 3, 3)
    for axes, pattern in {(): "ahwbhw->ab", (0,): "ahwbgw->ahbg", (1,): "ahwbhv->awbv"}.items():
        taps = 3 ** (2 - len(axes))
        expected = torch.einsum(pattern, C).reshape(3 ** (1 + len(axes)), -1) / taps
        found = marginal(right, (3, 3), axes)
        torch.testing.assert_close(found.L @ found.L.T, expected)
