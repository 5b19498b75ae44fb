"""A layer's sensitivity is what its error does to the whole network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.workers.engine.networks import seeded, vector_network
from workers.engine.graph.network import Network
from workers.engine.layers.find import find
from workers.engine.ranks.sensitivity import Sensitivity, sensitivities


def _network() -> Network:
    seeded()
    return vector_network(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), 16)


def _divergence(network: Network) -> Callable[[Callable[..., Any]], float]:
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    wanted = network(x).detach()
    return lambda other: float((other(x) - wanted).square().mean())


def test_a_layer_that_nothing_depends_on_does_not_matter_and_the_network_is_untouched() -> None:
    network = _network()
    with torch.no_grad():
        network.module.get_parameter("1.weight").zero_()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    found = sensitivities(network, lambda: find(network.copy()), _divergence(network))
    assert found["0"](0.5) < 1e-6
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_the_last_layers_sensitivity_is_its_output_errors_share() -> None:
    """With white inputs the squared error of the output is ‖W − Ŵ‖², whatever Ŵ."""
    network = _network()
    with torch.no_grad():
        network.module.get_parameter("0.weight").copy_(torch.eye(16))
        network.module.get_parameter("0.bias").zero_()
    found = sensitivities(network, lambda: find(network.copy()), _divergence(network), remembered=1)
    energy = float(network.module.get_parameter("1.weight").square().sum()) / 16
    for error in (0.001, 0.1, 0.3, 0.9):
        assert 0.5 * energy < found["1"](error) / error < 2.0 * energy


def test_layers_without_a_cheaper_form_are_left_out() -> None:
    network = vector_network(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1)), 16)
    found = sensitivities(network, lambda: find(network.copy()), _divergence(network))
    assert set(found) == {"0"}


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e3)), min_size=1, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_larger_error_is_never_predicted_to_be_better(
    measured: list[tuple[float, float]], one: float, other: float
) -> None:
    predict = Sensitivity.of(measured)
    low, high = sorted((one, other))
    assert 0 <= predict(low) <= predict(high) * (1 + 1e-9)


def test_what_was_measured_is_predicted_and_in_between_the_logarithms_are() -> None:
    predict = Sensitivity.of([(0.1, 2.0), (0.001, 0.02), (0.01, 1.0)])
    assert [predict(e) for e in (0.001, 0.01, 0.1)] == pytest.approx([0.02, 1.0, 2.0])
    assert predict(0.1**2.5) == pytest.approx((0.02 * 1.0) ** 0.5)
    assert (predict(0.0005), predict(0.2)) == pytest.approx((0.01, 4.0))


def test_a_weighted_sensitivity_expects_so_much_more_of_every_error() -> None:
    curve = Sensitivity.of([(0.01, 0.1), (0.1, 0.5)])
    for error in (0.001, 0.03, 0.5):
        assert curve.times(3.0)(error) == pytest.approx(3.0 * curve(error))
