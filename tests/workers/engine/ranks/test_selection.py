"""The forms that are worth a look, and the ranks of what stands out of noise."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import image_network, seeded, vector_network
from workers.engine.layers.base import Factorization, Form
from workers.engine.layers.find import find
from workers.engine.ranks.selection import for_menu, signal_rank, worth_timing


def test_worth_timing_are_a_few_forms_of_every_size() -> None:
    seeded()
    [layer] = find(vector_network(nn.Linear(64, 96), 64))
    shares = [form.macs / layer.macs for form in worth_timing(layer, ["svd"])]
    assert shares == sorted(shares)
    assert len(shares) >= 3
    assert max(shares) < 0.9


def _conv(channels: int, *, groups: int = 1, stride: int = 1) -> "dict[str, Factorization[Any]]":
    seeded()
    conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=groups)
    [layer] = find(image_network(conv, size=8, channels=channels))
    return layer.methods


def _beats(one: Form, other: Form) -> bool:
    """Whether one is no worse in anything, and another form."""
    return one != other and (
        one.macs <= other.macs and one.parameters <= other.parameters and one.error <= other.error
    )


@pytest.mark.parametrize("method", ["tucker", "channel_svd", "spatial_svd"])
def test_of_few_forms_a_menu_holds_every_undominated_one(method: str) -> None:
    factorization = _conv(8, stride=2)[method]
    every = list(factorization.forms(1))
    menu = for_menu(factorization)
    undominated = [form for form in every if not any(_beats(other, form) for other in every)]
    assert 1 < len(undominated) <= 48
    assert set(undominated) <= set(menu)
    assert set(menu) <= set(every)


@pytest.mark.parametrize("method", ["tucker", "channel_svd", "spatial_svd"])
def test_a_menu_of_many_forms_is_spread_over_their_cost_and_reaches_the_least(method: str) -> None:
    factorization = _conv(200)[method]
    menu = for_menu(factorization)
    coarse = [form for form in menu if all(number % 8 == 0 for number in form.rank)]
    assert len(coarse) <= 48
    assert len(menu) <= 2 * 48
    assert not any(_beats(one, other) for one in coarse for other in coarse)
    shares = sorted(form.macs / factorization.layer.macs for form in coarse)
    assert max(right - left for left, right in pairwise(shares)) < 0.08
    assert shares[-1] > 0.9
    assert min(form.macs for form in menu) == factorization.form((1,) * len(factorization.max_rank)).macs


class Planted(nn.Module):
    """Weights of known ranks under faint noise, and one of nothing but noise."""

    def __init__(self) -> None:
        super().__init__()
        self.signal, self.noise = nn.Linear(96, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.noise(self.signal(x))
        return out


def test_the_signal_is_what_stands_out_of_noise() -> None:
    seeded()
    module = Planted()
    with torch.no_grad():
        module.signal.weight.copy_(torch.randn(64, 5) @ torch.randn(5, 96) + 0.05 * torch.randn(64, 96))
        module.noise.weight.copy_(0.05 * torch.randn(64, 64))
    layers = find(vector_network(module, 96))
    assert {each.name: signal_rank(each.methods["svd"]) for each in layers} == {"signal": (5,), "noise": (1,)}


def test_the_signal_of_tucker_has_a_rank_for_both_channel_modes() -> None:
    seeded()
    conv = nn.Conv2d(48, 64, 3, padding=1)
    core, out, inside = torch.randn(7, 4, 3, 3), torch.randn(64, 7), torch.randn(48, 4)
    with torch.no_grad():
        conv.weight.copy_(torch.einsum("abhw,oa,ib->oihw", core, out, inside))
        conv.weight.add_(0.05 * torch.randn_like(conv.weight))
    [layer] = find(image_network(conv, size=8, channels=48))
    assert signal_rank(layer.methods["tucker"]) == (7, 4)


def test_a_method_whose_rank_is_that_of_no_matrix_has_no_signal() -> None:
    seeded()
    [layer] = find(vector_network(nn.Linear(64, 64), 64))
    assert signal_rank(layer.methods["tensor_train"]) is None
