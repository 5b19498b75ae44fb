"""A layer's output error is that of its substitute on the inputs that the original gives it."""

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import seeded, vector_network
from workers.engine.layers.find import find
from workers.engine.measure.output_error import output_errors


def _batch(n: int) -> list[tuple[tuple[Tensor, ...], None]]:
    return [((torch.randn(8, n, generator=torch.Generator().manual_seed(0)),), None)]


def test_a_substitute_of_half_the_weight_and_bias_has_half_the_output_as_error() -> None:
    seeded()
    network = vector_network(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), 6)
    weights = {name: value.detach() / 2 for name, value in network.module.named_parameters()}
    substitutes = {
        name: {path: value for path, value in weights.items() if path.startswith(name)} for name in ("0", "2")
    }
    errors = output_errors(network, find(network), substitutes, _batch(6))
    assert errors == {"0": pytest.approx(0.5), "2": pytest.approx(0.5)}


def test_the_weight_itself_has_no_error_and_a_dead_output_none_either() -> None:
    network = vector_network(nn.Linear(6, 5, bias=False), 6)
    [(path, weight)] = network.module.named_parameters()
    [layer] = find(network)
    assert output_errors(network, [layer], {layer.name: {path: weight}}, _batch(6)) == {layer.name: 0.0}
    with torch.no_grad():
        weight.zero_()
    errors = output_errors(network, [layer], {layer.name: {path: torch.zeros(5, 6)}}, _batch(6))
    assert errors == {layer.name: 0.0}
