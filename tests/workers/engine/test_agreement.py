"""The rate that gradients agree on: by hand, in the mean over noise, and where nothing can be told."""

import pytest
import torch
from torch import Tensor

from workers.engine.agreement import FASTEST, agreed, learning_rate, reliability


def _gradients(*rows: list[float]) -> list[tuple[Tensor, ...]]:
    """Batches' gradients, each in two tensors."""
    return [(torch.tensor(row[:1]), torch.tensor(row[1:])) for row in rows]


def test_what_all_batches_say_is_learned_as_fast_as_can_be() -> None:
    assert learning_rate(_gradients([3.0, -1.0], [3.0, -1.0])) == pytest.approx(FASTEST)


def test_the_rate_is_the_share_that_batches_agree_on() -> None:
    # Σg = (4, 0), Σ|g|² = 10: (16 − 10) / (1 · 10)
    assert learning_rate(_gradients([2.0, 1.0], [2.0, -1.0])) == pytest.approx(0.6 * FASTEST)


@pytest.mark.parametrize("other", [[0.0, 1.0], [-1.0, 0.0]])
def test_what_batches_do_not_agree_on_is_learned_slowly_but_not_never(other: list[float]) -> None:
    assert learning_rate(_gradients([1.0, 0.0], other)) == pytest.approx(0.02 * FASTEST)


@pytest.mark.parametrize("rows", [[], [[1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_what_tells_nothing_is_trusted(rows: list[list[float]]) -> None:
    assert learning_rate(_gradients(*rows)) == FASTEST


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_in_the_mean_it_is_one_over_one_plus_the_noise(noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.full((100,), 1.0)
    found = []
    for _ in range(200):
        batches = [true + noise * torch.randn(100, generator=generator) for _ in range(16)]
        found.append(learning_rate([(batch,) for batch in batches]) / FASTEST)
    assert sum(found) / len(found) == pytest.approx(1 / (1 + noise**2), rel=0.02)


def test_the_noise_of_a_mean_is_the_less_the_more_batches_it_is_of() -> None:
    found = [[2.0, 1.0], [2.0, -1.0]]  # they agree on 0.6: noise is 2 / 3 of the squared truth
    assert [reliability(_gradients(*found), count) for count in (1, 10)] == pytest.approx([0.6, 15 / 16])


def test_what_cancels_is_all_noise_and_one_batch_none() -> None:
    assert reliability(_gradients([1.0, 2.0], [-1.0, -2.0]), 2) == 0.0
    assert reliability(_gradients([1.0, 2.0]), 1) == 1.0


def test_what_chance_may_have_made_is_not_relied_on() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [[(torch.randn(5, generator=generator),) for _ in range(16)] for _ in range(200)]
    shares = torch.tensor([list(agreed(each)) for each in noise])
    assert shares[:, 0].std() == pytest.approx(float(shares[:, 1].mean()), rel=0.2)  # the error is one
    relied_on = [reliability(each, 1000) > 0.5 for each in noise]
    assert sum(relied_on) / len(relied_on) < 0.25  # a sixth of normal chances are above their error


def test_what_is_there_is_relied_on_in_spite_of_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [(0.2 + torch.randn(1000, generator=generator),) for _ in range(16)]
    assert 0.6 < reliability(batches, 100) < 0.9  # 0.04 · 100 / (0.04 · 100 + 1) = 0.8
