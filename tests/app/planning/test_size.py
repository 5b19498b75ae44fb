"""Menus of a network of the size of ResNet-50 are small, soon made, and nearly as good as the weights."""

import math
import time

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from app.contract.plan import Plan
from app.contract.spec import JobSpec
from app.contract.summary import ModelSummary
from app.planning.menus import menu_layers
from app.planning.plans import Total, make_plan
from tests.workers.engine.networks import image_network, seeded
from workers.engine.layers.find import find
from workers.stages.inspect import describe, menus


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.conv = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.expand = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.shortcut = nn.Identity() if channels == 4 * width else nn.Conv2d(channels, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.expand(self.conv(self.reduce(x).relu()).relu()) + self.shortcut(x)
        return out.relu()


class Bottlenecks(nn.Module):
    """ResNet-50 (He et al. 2016), without its normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        blocks, channels = [], 64
        for width, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
            for place in range(count):
                blocks.append(Bottleneck(channels, width, 2 if place == 0 and width > 64 else 1))
                channels = 4 * width
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        out: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return out


def _loss(plan: Plan) -> float:
    return -sum(math.log(1.0 - layer.discarded_energy) for layer in plan.layers)


@pytest.mark.slow
def test_menus_of_resnet_50_are_small_and_plan_as_the_weights_do_in_no_time() -> None:
    seeded()
    network = image_network(Bottlenecks(), size=224)
    layers, began = find(network), time.process_time()
    found = describe(network, layers).model_copy(update={"menus": menus(layers)})
    assert time.process_time() - began < 40.0  # of all cores together
    text = found.model_dump_json()
    assert len(text) < 300_000
    for keep in (0.9, 0.5, 0.2, 0.05):
        spec, began = JobSpec(model="mdl_" + "0" * 32), time.process_time()
        summary = ModelSummary.model_validate_json(text)
        total = Total(summary.parameters, summary.macs)
        plan = make_plan(menu_layers(summary.layers, summary.menus or []), total, spec, keep)
        assert time.process_time() - began < 2.0
        whole = make_plan(layers, total, spec, keep)
        assert 0.98 * keep <= plan.macs / total.macs <= keep
        assert _loss(plan) <= 1.01 * _loss(whole)
