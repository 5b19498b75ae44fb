"""BatchNorm's statistics follow a decomposition, and only that."""

import torch
from torch import Tensor, nn

from tests.workers.engine.networks import image_network, seeded
from workers.engine.batch_norm import correct_batch_norm, watch
from workers.engine.graph import surgery
from workers.engine.graph.network import Network


def _network() -> Network:
    seeded()
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    )
    for module in layers:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return image_network(layers, 3)


def _batches(count: int = 2) -> list[tuple[tuple[Tensor, ...], None]]:
    generator = torch.Generator().manual_seed(0)
    return [((torch.randn(6, 3, 8, 8, generator=generator) * 3 + 1,), None) for _ in range(count)]


def test_a_network_that_did_not_change_keeps_its_statistics_whatever_the_data() -> None:
    network = _network()
    copy = network.copy()
    assert correct_batch_norm(copy, _batches(), watch(network, _batches()))
    for name, value in network.module.state_dict().items():
        torch.testing.assert_close(copy.module.state_dict()[name], value)


def test_a_scaled_and_shifted_convolution_is_followed_exactly_through_the_network() -> None:
    network = _network()
    copy = network.copy()
    with torch.no_grad():
        surgery.stored(copy.module, "0.weight").mul_(2.0)
        surgery.stored(copy.module, "0.bias").add_(5.0)
    assert correct_batch_norm(copy, _batches(), watch(network, _batches()))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(copy(x), network(x), rtol=1e-3, atol=1e-3)


def test_the_original_is_untouched() -> None:
    network = _network()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    correct_batch_norm(network.copy(), _batches(), watch(network, _batches()))
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_a_network_without_batch_norm_or_no_batches_says_so() -> None:
    plain = image_network(nn.Conv2d(3, 3, 1))
    assert not correct_batch_norm(plain.copy(), _batches(), watch(plain, _batches()))
    assert not correct_batch_norm(_network(), [], watch(_network(), []))
