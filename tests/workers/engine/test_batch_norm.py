"""BatchNorm re-estimation gives the average over the calibration batches."""

import torch
from torch import nn

from tests.workers.engine.networks import image_network
from workers.engine.batch_norm import reestimate_batch_norm


def test_running_statistics_become_the_plain_average_over_the_batches() -> None:
    network = image_network(nn.BatchNorm2d(3), 3)
    batches = [torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(i)) * 3 + i for i in range(4)]
    assert reestimate_batch_norm(network, [((batch,), None) for batch in batches])
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in batches]).mean(0)
    torch.testing.assert_close(network.module.get_buffer("running_mean"), means, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.module.get_buffer("running_var"), variances, rtol=1e-5, atol=1e-5)


def test_the_network_is_back_in_evaluation_afterwards() -> None:
    network = image_network(nn.BatchNorm2d(3), 3)
    reestimate_batch_norm(network, [((torch.randn(6, 3, 8, 8),), None)])
    before = network.module.get_buffer("running_mean").clone()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(x)[:1], network(x[:1]))
    assert torch.equal(network.module.get_buffer("running_mean"), before)


def test_a_network_without_batch_norm_says_so() -> None:
    assert not reestimate_batch_norm(image_network(nn.Conv2d(3, 3, 1)), [])
