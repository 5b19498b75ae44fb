"""Products by a transposed weight become products by the weight: the same results, and layers to be found."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.workers.engine.networks import draw_all, seeded, vector_network
from workers.engine.graph.canonical import canonicalise
from workers.engine.layers.find import find

Product = Callable[[Tensor, Tensor, Tensor], Tensor]

STRAIGHTENED: dict[str, tuple[Product, str]] = {
    "x @ W.T": (lambda x, W, _: x @ W.T, "linear"),
    "x @ W.mT": (lambda x, W, _: x @ W.mT, "linear"),
    "x @ W.permute": (lambda x, W, _: x @ W.permute(1, 0), "linear"),
    "x @ W.transpose": (lambda x, W, _: x @ W.transpose(-1, -2), "linear"),
    "mm(x, W.t())": (lambda x, W, _: torch.mm(x.flatten(0, 1), W.t()), "linear"),
    "addmm(b, x, W.t())": (lambda x, W, b: torch.addmm(b, x.flatten(0, 1), W.t()), "linear"),
    "linear by a transposed weight": (lambda x, W, b: F.linear(x, W.t(), b), "matmul"),
}


class By(nn.Module):
    def __init__(self, product: Product, *shape: int) -> None:
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias)


@pytest.mark.parametrize(("product", "kind"), STRAIGHTENED.values(), ids=STRAIGHTENED)
def test_a_product_by_a_transposed_weight_is_one_by_the_weight(product: Product, kind: str) -> None:
    seeded()
    shape = (4, 6) if kind == "matmul" else (6, 4)
    network = vector_network(By(product, *shape), 5, 4)
    [x] = draw_all(network, 3)
    expected = network(x)
    straight = canonicalise(network)
    torch.testing.assert_close(straight(x), expected)
    [layer] = find(straight)
    assert (layer.kind, tuple(layer.site.W.shape)) == (kind, shape)
    assert layer.methods["svd"].max_rank == (4,)


@pytest.mark.parametrize(
    "product",
    [
        lambda x, W, b: torch.addmm(b, x.flatten(0, 1), W.t(), alpha=0.5),
        lambda x, W, _: x @ W.permute(0, 1).T.T.permute(1, 0).relu(),
    ],
    ids=["scaled", "computed"],
)
def test_other_products_are_left_alone(product: Product) -> None:
    network = vector_network(By(product, 6, 4), 5, 4)
    assert canonicalise(network) is network
    assert find(network) == []
