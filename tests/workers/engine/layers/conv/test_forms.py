"""Which ranks the forms are tried at, and a fit that is degenerate."""

import pytest
import torch
from torch import nn

from tests.workers.engine.networks import image_network
from workers.engine.layers.conv import cp
from workers.engine.layers.find import find


def test_cp_offers_a_handful_of_ranks_and_full_tucker_every_rank_of_the_kernel() -> None:
    [layer] = find(image_network(nn.Conv2d(32, 32, 3), 32))
    assert [rank for (rank,) in layer.methods["cp"].ranks(8)] == [16, 40, 64, 96]
    grid = list(layer.methods["full_tucker"].ranks(16))
    assert grid[:4] == [(16, 16, 1, 1), (16, 16, 1, 2), (16, 16, 1, 3), (16, 16, 2, 1)]
    assert len(grid) == 2 * 2 * 9


def test_a_degenerate_cp_fit_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    network = image_network(nn.Conv2d(3, 3, (1, 3), bias=False), 3)
    a, b, c = torch.eye(3)
    limit = [(a, b, b), (b, a, b), (b, b, a), (a, a, c), (a, c, a), (c, a, a)]  # of sums of three terms
    kernel = torch.stack([torch.einsum("a,b,c->abc", *terms) for terms in limit]).sum(0)
    [layer] = find(network)
    layer.site.W.copy_(kernel[:, :, None])
    monkeypatch.setattr(cp, "_RIDGE", 0.0)  # with the usual one no fit of this kernel is degenerate
    rewritten = layer.methods["cp"].rewrite((3,))
    [warning] = rewritten.warnings
    assert "degenerate" in warning
    assert torch.dist(rewritten.weight, layer.site.W) < 0.2 * kernel.norm()
