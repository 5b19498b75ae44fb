"""What a convolution shows of itself: the vectors that its weight multiplied, and where they come from."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg

from tests.workers.engine.networks import image_network, seeded, vector_network
from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.layers.conv.patches import POSITIONS
from workers.engine.layers.find import find


class _Spy(Interpreter):
    """Keeps the values of the arguments and the output of one call."""

    def __init__(self, network: Network, node: Node) -> None:
        super().__init__(network.module)
        self._node = node.name
        self.arguments: Mapping[str, Any] = {}
        self.result = torch.empty(0)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name == self._node:
            self.arguments = map_arg(surgery.arguments(n), self.env.__getitem__)
            self.result = value
        return value


def observed(network: Network, batch: int = 2) -> tuple[Layer, Tensor, Tensor]:
    """The one layer, the vectors of a call, and its output without the bias as the gradient's vectors."""
    seeded(5)
    [layer] = find(network)
    spy = _Spy(network, layer.site.node)
    with torch.no_grad():
        spy.run(*network.examples(batch))
    bias = spy.arguments["bias"]
    output = spy.result if bias is None else spy.result - bias.reshape(-1, *(1 for _ in spy.result.shape[2:]))
    return layer, layer.vectors(spy.arguments), layer.gradients(output)


@pytest.mark.parametrize(
    "network",
    [
        vector_network(nn.Conv1d(4, 6, 3, 2, 2, 2), 4, 11),
        image_network(nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2)), 4, size=9),
        image_network(nn.Conv2d(4, 6, (3, 2), padding="same", dilation=(2, 1), bias=False), 4),
        image_network(nn.Conv2d(4, 6, 2, 2, "valid"), 4),
        image_network(nn.Conv2d(4, 6, 1, 2, 1), 4),
        vector_network(nn.Conv3d(2, 3, (1, 3, 2), padding=1), 2, 4, 4, 4),
    ],
    ids=["conv1d", "conv2d", "same", "valid", "1×1", "conv3d"],
)
def test_the_weight_times_the_vectors_is_the_output(network: Network) -> None:
    layer, vectors, outputs = observed(network)
    assert vectors.shape[1] == layer.observed
    torch.testing.assert_close(vectors @ layer.matrix.T, outputs, rtol=1e-4, atol=1e-5)


def test_groups_are_pooled_one_vector_each() -> None:
    seeded()
    module = nn.Conv2d(6, 9, 3, 2, padding=1, groups=3)
    layer, vectors, outputs = observed(image_network(module, 6, size=7))
    kernels = module.weight.detach().reshape(3, 3, -1)
    found = torch.einsum("pgn,gon->pgo", vectors.reshape(-1, 3, layer.observed), kernels)
    torch.testing.assert_close(found, outputs.reshape(-1, 3, 3), rtol=1e-4, atol=1e-5)
    assert not layer.takes_mean


def test_a_transposed_convolution_shows_the_channels_of_its_input() -> None:
    layer, vectors, outputs = observed(image_network(nn.ConvTranspose2d(4, 6, 3, 2), 4, size=5))
    assert (layer.observed, tuple(vectors.shape)) == (4, (2 * 25, 4))
    assert outputs.shape[1] == len(layer.matrix) == 6
    assert not layer.takes_mean


def test_a_kernel_whose_patches_are_too_wide_shows_channels() -> None:
    layer, vectors, _ = observed(image_network(nn.Conv2d(512, 4, 3), 512, size=4))
    assert (layer.observed, tuple(vectors.shape)) == (512, (2 * 16, 512))
    assert not layer.takes_mean


def test_of_many_patches_some_are_drawn() -> None:
    layer, vectors, outputs = observed(image_network(nn.Conv2d(2, 3, 3), 2, size=70), batch=1)
    assert len(vectors) == POSITIONS < len(outputs)
    found = vectors @ layer.matrix.T
    distances = torch.cdist(found[:50], outputs, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
    assert float(distances.max()) < 1e-4


def test_calls_that_group_one_weight_differently_leave_it_dense() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.conv2d(x, self.weight, padding=1)
            return nn.functional.conv2d(torch.cat([y, y], 1), self.weight, padding=1, groups=2)

    [layer] = find(image_network(Shared(), 4))
    assert "groups" in str(layer.reason)
    assert not layer.methods
