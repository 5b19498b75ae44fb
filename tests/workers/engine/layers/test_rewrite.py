"""Convolutions of any geometry, forms on grids of ranks, tied weights."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.workers.engine.layers.cells import assert_costs, assert_same, half, most, rewritten
from tests.workers.engine.layers.table import documented
from tests.workers.engine.networks import image_network, seeded, vector_network
from workers.engine.graph.network import Network
from workers.engine.layers.find import find


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
    [layer] = find(network)
    assert set(layer.methods) == documented(layer)
    if not layer.methods:
        assert "depthwise" in str(layer.reason)
        return
    method = data.draw(st.sampled_from(list(layer.methods)))
    assert_same(network, rewritten(network, method, most)[0])
    assert_costs(network, *rewritten(network, method, half))


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
    assert_costs(network, *rewritten(network, "svd", half))
    assert_same(network, rewritten(network, "svd", most)[0])
