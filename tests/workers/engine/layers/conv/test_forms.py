"""The forms in numbers and in files: the textbook, grids of ranks, artifacts that stock tools run."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import image_network, seeded
from workers.engine.formats import onnx, pt2
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.conv import cp
from workers.engine.layers.find import find
from workers.engine.measure import cost


def test_the_textbooks_kernel_in_full_tucker_form_holds_10514_weights() -> None:
    network = image_network(nn.Conv2d(256, 256, 3, bias=False), 256, size=4)
    [layer] = find(network)
    rank = (16, 16, 3, 3)
    core, factors = 16 * 16 * 3 * 3, [256 * 16, 256 * 16, 3 * 3, 3 * 3]
    form = layer.methods["full_tucker"].form(rank)
    assert form.parameters == core + sum(factors) == 10_514
    layer.methods["full_tucker"].rewrite(rank)
    surgery.prune(network.module)
    rewritten = trace(network.module, network.inputs)
    assert cost.parameters(rewritten) == 10_514
    assert sorted(p.numel() for p in rewritten.module.parameters()) == sorted([core, *factors])
    assert cost.count(rewritten).macs == form.macs


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


FORMS = ["svd", "tucker", "full_tucker", "channel_svd", "channel_svd_in", "spatial_svd", "cp"]
TRANSPOSED = ["tucker", "channel_svd", "channel_svd_in", "spatial_svd"]


class EveryForm(nn.Module):
    """One layer for every form: plain, transposed or grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.ModuleDict({form: nn.Conv2d(6, 6, 1 if form == "svd" else 3) for form in FORMS})
        self.transposed = nn.ModuleDict(
            {form: nn.ConvTranspose2d(6, 6, 3, 2, output_padding=1) for form in TRANSPOSED}
        )
        self.grouped = nn.ModuleDict({form: nn.Conv2d(6, 6, 3, groups=2) for form in TRANSPOSED})

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            module(x) for group in (self.plain, self.transposed, self.grouped) for module in group.values()
        ]
        return torch.stack([part.mean((2, 3)) for part in parts]).sum(0)


def every_form() -> Network:
    seeded()
    network = image_network(EveryForm(), 6)
    for layer in find(network):
        factorization = layer.methods[layer.name.split(".")[1]]
        factorization.rewrite(tuple(max(1, rank // 2) for rank in factorization.max_rank))
    surgery.prune(network.module)
    return trace(network.module, network.inputs)


def test_every_form_runs_in_stock_onnx_runtime_and_stock_torch(tmp_path: Path) -> None:
    network = every_form()
    onnx.write(network, tmp_path / "model.onnx")
    pt2.write(network, tmp_path / "model.pt2")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    stock = torch.export.load(tmp_path / "model.pt2").module()
    ours = pt2.read(tmp_path / "model.pt2")
    for batch in (1, 4):
        [x] = network.examples(batch)
        with torch.no_grad():
            wanted = network(x)
            torch.testing.assert_close(stock(x), wanted)
            torch.testing.assert_close(ours(x), wanted)
        [found] = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)
