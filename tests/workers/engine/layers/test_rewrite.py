"""Every layer kind: a full-rank form computes the same, costs what it says, and trains."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.workers.engine.networks import HuggingFaceLinear, image_network, seeded, vector_network
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.base import Form, Layer
from workers.engine.layers.find import find
from workers.engine.measure import cost


def rewritten(
    network: Network, rank: Callable[[Layer], tuple[int, ...]]
) -> tuple[Network, list[Form], list[float]]:
    """A copy with every decomposable layer rewritten, traced anew."""
    copy = network.copy()
    layers = [layer for layer in find(copy) if layer.max_rank]
    forms = [layer.form(rank(layer)) for layer in layers]
    errors = [layer.rewrite(form.rank) for layer, form in zip(layers, forms, strict=True)]
    surgery.prune(copy.module)
    return trace(copy.module, copy.inputs), forms, errors


def assert_same(network: Network, other: Network) -> None:
    x = torch.randn(network.sizes(5)[0], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(other(x), network(x), rtol=1e-4, atol=1e-4)


CASES = {
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
    "conv1d 1": lambda: vector_network(nn.Conv1d(9, 12, 1), 9, 6),
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_a_full_rank_form_computes_the_same(make: Callable[[], Network]) -> None:
    seeded()
    network = make()
    other, forms, errors = rewritten(network, lambda layer: layer.max_rank)
    assert forms
    assert max(errors) < 1e-5
    assert_same(network, other)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_a_form_costs_what_an_independent_count_of_the_rewritten_graph_says(
    make: Callable[[], Network],
) -> None:
    seeded()
    network = make()
    other, forms, _ = rewritten(network, lambda layer: tuple(max(1, rank // 2) for rank in layer.max_rank))
    counted = cost.count(other)
    assert counted.macs == sum(form.macs for form in forms)
    assert counted.parameters == sum(form.parameters for form in forms)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_factors_receive_gradients_and_the_original_is_untouched(make: Callable[[], Network]) -> None:
    seeded()
    network = make()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    other, _, _ = rewritten(network, lambda layer: tuple(max(1, rank // 2) for rank in layer.max_rank))
    other(torch.randn(network.sizes(3)[0])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in other.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_convolution_is_reproduced_at_full_rank(data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, padding, dilation = (data.draw(st.integers(low, 2)) for low in (1, 0, 1))
    channels, out = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    seeded(data.draw(st.integers(0, 9)))
    layer = nn.Conv2d(channels, out, kernel, stride, padding, dilation, bias=data.draw(st.booleans()))
    network = image_network(layer, channels, size=9)
    other, _, _ = rewritten(network, lambda found: found.max_rank)
    assert_same(network, other)


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_the_predicted_error_bounds_the_measured_one(make: Callable[[], Network]) -> None:
    seeded()
    _, forms, errors = rewritten(make(), lambda layer: tuple(max(1, rank // 2) for rank in layer.max_rank))
    for form, error in zip(forms, errors, strict=True):
        assert error**2 <= form.error + 1e-6
        assert error > 0


def test_forms_are_cheaper_than_dense_and_on_the_grid() -> None:
    [layer] = find(image_network(nn.Conv2d(32, 48, 3, padding=1), 32))
    forms = list(layer.forms(8))
    assert forms
    assert all(form.parameters < layer.parameters and form.macs < layer.macs for form in forms)
    assert all(rank % 8 == 0 for form in forms for rank in form.rank)
