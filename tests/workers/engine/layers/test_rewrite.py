"""Every layer kind: a full-rank form computes the same, costs what it says, and trains."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.workers.engine.networks import (
    ConstantProduct,
    HuggingFaceLinear,
    TiedTokens,
    draw,
    image_network,
    seeded,
    token_network,
    vector_network,
)
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.base import Factorization, Form, relative_error
from workers.engine.layers.find import find
from workers.engine.measure import cost

Ranks = Callable[[Factorization[Any]], tuple[int, ...]]


def full(factorization: Factorization[Any]) -> tuple[int, ...]:
    return factorization.max_rank


def half(factorization: Factorization[Any]) -> tuple[int, ...]:
    return tuple(max(1, rank // 2) for rank in factorization.max_rank)


def rewritten(network: Network, method: str, rank: Ranks) -> tuple[Network, Form, float]:
    """A copy whose one layer has taken a method, traced anew; the form predicted, the error measured."""
    copy = network.copy()
    [layer] = find(copy)
    W, factorization = layer.site.W.clone(), layer.methods[method]
    form = factorization.form(rank(factorization))
    error = relative_error(W, factorization.rewrite(form.rank).weight)
    surgery.prune(copy.module)
    return trace(copy.module, copy.inputs), form, error


def methods_of(network: Network) -> list[str]:
    [layer] = find(network)
    return list(layer.methods)


def assert_same(network: Network, other: Network) -> None:
    x = draw(network, 5)
    with torch.no_grad():
        torch.testing.assert_close(other(x), network(x), rtol=1e-4, atol=1e-4)


CASES: dict[str, Callable[[], Network]] = {
    "linear": lambda: vector_network(nn.Linear(12, 7), 12),
    "linear without bias on tokens": lambda: vector_network(nn.Linear(12, 7, bias=False), 5, 12),
    "addmm": lambda: vector_network(HuggingFaceLinear(9, 14), 9),
    "conv1d": lambda: vector_network(nn.Conv1d(6, 8, 5, stride=2, padding=2), 6, 11),
    "conv2d": lambda: image_network(nn.Conv2d(6, 10, 3, padding=1), 6),
    "conv2d strided, dilated": lambda: image_network(nn.Conv2d(6, 10, 3, 2, 2, dilation=2, bias=False), 6),
    "conv2d not square": lambda: image_network(nn.Conv2d(5, 4, (1, 5), padding=(0, 2)), 5),
    "conv2d padding same": lambda: image_network(nn.Conv2d(6, 10, 3, padding="same"), 6),
    "conv3d": lambda: vector_network(nn.Conv3d(4, 6, 3, padding=1), 4, 5, 5, 5),
    "conv2d 1×1": lambda: image_network(nn.Conv2d(9, 12, 1), 9),
    "conv2d 1×1 strided, padded": lambda: image_network(nn.Conv2d(9, 12, 1, 2, 1), 9),
    "matmul": lambda: vector_network(ConstantProduct(9, 14), 5, 9),
    "embedding": lambda: token_network(nn.Embedding(11, 6)),
    "embedding with a padding index": lambda: token_network(nn.Embedding(11, 6, padding_idx=2)),
    "embedding tied to the head": lambda: token_network(TiedTokens(11, 6)),
    "embedding tied to a head without bias": lambda: token_network(TiedTokens(11, 6, bias=False)),
    "conv1d 1": lambda: vector_network(nn.Conv1d(9, 12, 1), 9, 6),
    "conv2d padding valid, strided": lambda: image_network(nn.Conv2d(6, 10, (3, 2), 2, "valid"), 6),
    "conv2d of three channels": lambda: image_network(nn.Conv2d(3, 16, 5, padding=2), 3),
    "conv2d into one channel": lambda: image_network(nn.Conv2d(8, 1, 3), 8),
    "conv1d grouped": lambda: vector_network(nn.Conv1d(6, 9, 3, 2, groups=3), 6, 11),
    "conv2d grouped": lambda: image_network(nn.Conv2d(8, 12, 3, padding="same", groups=2, bias=False), 8),
    "conv2d 1×1 grouped": lambda: image_network(nn.Conv2d(8, 12, 1, 2, groups=2), 8),
    "conv3d grouped": lambda: vector_network(nn.Conv3d(4, 8, (1, 3, 2), groups=2), 4, 4, 4, 4),
    "conv_transpose1d": lambda: vector_network(nn.ConvTranspose1d(6, 8, 3, 2, 1, 1), 6, 5),
    "conv_transpose2d": lambda: image_network(nn.ConvTranspose2d(6, 9, (3, 4), (2, 3), 1, (1, 2)), 6),
    "conv_transpose2d dilated": lambda: image_network(nn.ConvTranspose2d(6, 9, 3, dilation=2, bias=False), 6),
    "conv_transpose2d grouped": lambda: image_network(nn.ConvTranspose2d(8, 6, 3, 2, groups=2), 8),
    "conv_transpose2d 1×1 strided": lambda: image_network(nn.ConvTranspose2d(9, 7, 1, 2), 9),
    "conv_transpose3d": lambda: vector_network(nn.ConvTranspose3d(4, 5, 3, 2), 4, 3, 3, 3),
}


def built(make: Callable[[], Network]) -> Callable[[], Network]:
    """The same network for all tests: none may change it."""

    def build() -> Network:
        seeded()
        return make()

    return functools.cache(build)


@functools.cache
def halved(make: Callable[[], Network], method: str) -> tuple[Network, Form, float]:
    return rewritten(make(), method, half)


# Every method of every kind of layer goes through the same tests.
EVERY = pytest.mark.parametrize(
    ("make", "method"),
    [
        pytest.param(make, method, id=f"{name}: {method}")
        for name, make in ((name, built(make)) for name, make in CASES.items())
        for method in methods_of(make())
    ],
)


@EVERY
def test_a_full_rank_form_computes_the_same(make: Callable[[], Network], method: str) -> None:
    network = make()
    other, _, error = rewritten(network, method, full)
    assert error < 1e-5
    assert_same(network, other)


@EVERY
def test_a_form_costs_what_an_independent_count_of_the_rewritten_graph_says(
    make: Callable[[], Network], method: str
) -> None:
    other, form, _ = halved(make, method)
    counted = cost.count(other)
    assert (counted.macs, counted.parameters) == (form.macs, form.parameters)


@EVERY
def test_factors_receive_gradients_and_the_original_is_untouched(
    make: Callable[[], Network], method: str
) -> None:
    network = make()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    other, _, _ = rewritten(network, method, half)
    other(draw(network, 3)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in other.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


@EVERY
def test_the_predicted_error_bounds_the_measured_one(make: Callable[[], Network], method: str) -> None:
    _, form, error = halved(make, method)
    assert 0 < error**2 <= form.error + 1e-6


def any_convolution(choose: Any) -> Network:
    """One to three axes, ordinary or transposed, of any stride, padding, dilation, groups and channels."""
    axes, groups = choose(st.integers(1, 3)), choose(st.integers(1, 3))
    channels, out = (groups * choose(st.integers(1, 4)) for _ in range(2))
    kernel, stride, dilation = (
        choose(st.tuples(*[st.integers(1, most)] * axes)) for most in ((3, 2, 2) if axes < 3 else (2, 2, 1))
    )
    bias, transposed = choose(st.booleans()), choose(st.booleans())
    seeded(choose(st.integers(0, 9)))
    layer: nn.Module
    if transposed:
        extra = tuple(choose(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        make = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
        layer = make(channels, out, kernel, stride, 0, extra, groups, bias, dilation)
    else:
        same = [] if max(stride) > 1 else ["same"]
        padding = choose(st.sampled_from([0, 2, "valid", *same]))
        plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        layer = plain(channels, out, kernel, stride, padding, dilation, groups, bias)
    return vector_network(layer, channels, *(9 if axes < 3 else 5,) * axes)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_convolution_is_reproduced_at_full_rank_and_counted_at_half(data: st.DataObject) -> None:
    network = any_convolution(data.draw)
    methods = methods_of(network)
    if not methods:
        [layer] = find(network)
        assert "depthwise" in str(layer.reason)
        return
    method = data.draw(st.sampled_from(methods))
    assert_same(network, rewritten(network, method, full)[0])
    other, form, _ = rewritten(network, method, half)
    counted = cost.count(other)
    assert (counted.macs, counted.parameters) == (form.macs, form.parameters)


def test_forms_are_cheaper_than_dense_and_on_the_grid() -> None:
    [layer] = find(image_network(nn.Conv2d(32, 48, 3, padding=1), 32))
    forms = list(layer.methods["tucker"].forms(8))
    assert forms
    assert all(form.parameters < layer.parameters and form.macs < layer.macs for form in forms)
    assert all(rank % 8 == 0 for form in forms for rank in form.rank)


def test_a_tied_weight_is_factorized_once_and_every_user_is_rewritten() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(12, 12)
            self.second = nn.Linear(12, 12)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x).relu())
            return out

    seeded()
    network = vector_network(Tied(), 12)
    [layer] = find(network)
    assert (layer.parameters, layer.macs) == (12 * 12 + 24, 2 * 12 * 12)
    other, form, _ = rewritten(network, "svd", half)
    counted = cost.count(other)
    assert (counted.macs, counted.parameters) == (form.macs, form.parameters)
    assert_same(network, rewritten(network, "svd", full)[0])
