"""Frobenius decay: the energy of what factors stand for, found in the graph without making it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.workers.engine.networks import (
    image_network,
    recurrent_network,
    seeded,
    token_network,
    vector_network,
)
from workers.engine.data import Examples
from workers.engine.decay import energy, products
from workers.engine.finetune import Judged, Schedule, finetune
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.find import find
from workers.engine.losses import make_loss


def _factorized(network: Network, method: str, rank: Sequence[int]) -> tuple[Network, float]:
    """The network with every layer that takes the method in it, traced anew; the energy of their dense
    weights."""
    total = 0.0
    for layer in find(network):
        if method in layer.methods:
            total += float(layer.methods[method].rewrite(tuple(rank)).weight.double().square().sum())
    surgery.prune(network.module)
    return trace(network.module, network.inputs), total


class _Product(nn.Module):
    """x W, W square, as transformers write it."""

    def __init__(self, addmm: bool) -> None:
        super().__init__()
        self.W, self.b, self.addmm = nn.Parameter(torch.randn(12, 12)), nn.Parameter(torch.randn(12)), addmm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.b, x, self.W) if self.addmm else x @ self.W


def _convolution(**options: Any) -> Network:
    return image_network(nn.Conv2d(12, 18, 3, **options), channels=12)


_CASES = [
    (lambda: vector_network(nn.Linear(12, 12), 12), "svd", [3], 1),
    (lambda: vector_network(nn.Linear(9, 20), 9), "svd", [3], 1),
    (lambda: vector_network(_Product(True), 12), "svd", [3], 1),
    (lambda: vector_network(_Product(False), 12), "svd", [3], 1),
    (lambda: token_network(nn.Embedding(30, 12)), "svd", [3], 1),
    (lambda: image_network(nn.Conv2d(12, 18, 1), channels=12), "svd", [3], 1),
    (_convolution, "spatial_svd", [5], 1),
    (_convolution, "channel_svd", [5], 1),
    (_convolution, "channel_svd_in", [5], 1),
    (_convolution, "tucker", [4, 5], 1),
    (lambda: _convolution(groups=3, padding="same"), "tucker", [2, 3], 1),
    (lambda: _convolution(groups=2), "channel_svd", [3], 1),
    (lambda: recurrent_network("lstm"), "svd", [3], 2),
    # What these stand for is not known from two factors of their own.
    (_convolution, "cp", [4], 0),
    (_convolution, "full_tucker", [4, 5, 2, 2], 0),
    (lambda: image_network(nn.ConvTranspose2d(12, 18, 3), channels=12), "channel_svd", [5], 0),
    (lambda: recurrent_network("gru"), "tucker", [2, 3, 3], 0),
]


@pytest.mark.parametrize(("make", "method", "rank", "count"), _CASES)
def test_the_energy_is_that_of_the_dense_weight(make: Any, method: str, rank: list[int], count: int) -> None:
    seeded()
    network, wanted = _factorized(make(), method, rank)
    found = products(network)
    assert len(found) == count
    assert float(energy(network, found).detach()) == pytest.approx(wanted if count else 0.0, rel=1e-4)


def test_a_network_without_factors_has_no_energy() -> None:
    network = vector_network(nn.Linear(4, 4), 4)
    assert products(network) == []
    assert float(energy(network, [])) == 0.0


def test_decay_makes_the_product_smaller_and_leaves_the_rest_alone() -> None:
    ends = []
    for decay in (0.0, 1e-3, 1e-1):
        seeded()
        student, _ = _factorized(vector_network(nn.Linear(12, 12), 12), "svd", [3])
        x = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
        trained = finetune(
            student,
            student.copy(),
            Examples((x,), None, student.inputs),
            Schedule(4, 1e-2, 16, 0, decay=decay),
            make_loss("outputs", "logits"),
            judge=lambda _: Judged(),
            advance=lambda _done, _of: None,
        )
        ends.append(float(energy(student, products(student)).detach()))
        assert trained.curve[0].loss < 1e-6  # the curve is without it
    assert ends[0] > ends[1] > ends[2]
