"""The counter against an independent one (torch's, which watches the real computation) and formulas."""

import time
import warnings
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.workers.engine.networks import recurrent_network
from workers.engine.errors import EngineError
from workers.engine.graph.network import Dimension, Input, Network, trace
from workers.engine.measure.cost import count

BATCH = Dimension("batch")


class Apply(nn.Module):
    """A function as a module, with weights of its own."""

    def __init__(self, function: Callable[..., Tensor], **weights: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, weight in weights.items():
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **dict(self.named_parameters()))


def network_of(module: nn.Module, *shape: int | Dimension, dtype: torch.dtype = torch.float32) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export remarks on the flat weights of recurrent layers
        return trace(module.eval(), [Input("x", dtype, (BATCH, *shape))])


def independent_macs(module: nn.Module, *shape: int) -> int:
    # torch's counter cannot see into the CPU's fused kernels: gradients and MATH keep them away
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module.eval()(torch.zeros(1, *shape))
    flops: int = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


class SelfAttention(nn.Module):
    """Attention by torch's fused operator."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(12, 16), nn.Linear(12, 16), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v)


ZOO: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(3, 8, 5, stride=2, padding=1), (3, 33)),
    "conv2d": (nn.Conv2d(3, 8, 3, padding=1), (3, 9, 11)),
    "conv2d_same": (nn.Conv2d(3, 8, 3, padding="same"), (3, 9, 11)),
    "conv2d_grouped": (nn.Conv2d(8, 16, 3, groups=4, bias=False), (8, 9, 9)),
    "conv2d_depthwise": (nn.Conv2d(8, 8, 3, groups=8), (8, 9, 9)),
    "conv2d_dilated": (nn.Conv2d(4, 6, (3, 5), dilation=2), (4, 16, 17)),
    "conv3d": (nn.Conv3d(2, 4, 3, stride=(1, 2, 2)), (2, 5, 9, 9)),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 4, stride=2), (4, 9)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (4, 5, 5)),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 3, 2), (2, 3, 4, 5)),
    "linear_2d": (nn.Linear(7, 5), (7,)),
    "linear_3d": (nn.Linear(7, 5, bias=False), (4, 7)),
    "addmm": (Apply(lambda x, w, b: torch.addmm(b, x, w), w=torch.rand(6, 4), b=torch.rand(4)), (6,)),
    "matmul_by_weight": (Apply(lambda x, w: x @ w, w=torch.rand(6, 4)), (3, 6)),
    "matmul_batched": (Apply(lambda x: x @ x.transpose(1, 2)), (3, 6)),
    "einsum": (Apply(lambda x, w: torch.einsum("bti,ij->btj", x, w), w=torch.rand(6, 4)), (3, 6)),
    "multi_head_attention": (nn.TransformerEncoderLayer(12, 3, 24, batch_first=True), (5, 12)),
    "fused_attention": (SelfAttention(), (5, 12)),
    "cnn": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.LayerNorm(32),
            nn.Linear(32, 10),
            nn.Softmax(-1),
        ),
        (3, 16, 16),
    ),
}


@pytest.mark.parametrize("name", ZOO)
def test_macs_are_half_of_the_flops_torch_sees(name: str) -> None:
    module, shape = ZOO[name]
    cost = count(network_of(module, *shape))
    assert cost.macs == independent_macs(module, *shape) > 0
    assert cost.macs == sum(cost.macs_by_node.values())
    assert cost.uncounted == ()


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    groups=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    features=st.integers(1, 9),
)
def test_any_convolutional_network_counts_alike(
    widths: list[int], groups: int, kernel: int, stride: int, features: int
) -> None:
    channels = [width * groups for width in widths]
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, stride, padding=1, groups=groups)
        for before, after in pairwise(channels)
    ]
    module = nn.Sequential(
        *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], features)
    )
    cost = count(network_of(module, channels[0], 12, 10))
    assert cost.macs == independent_macs(module, channels[0], 12, 10)
    assert cost.parameters == sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("module", "gates", "layers", "directions"),
    [
        (nn.LSTM(5, 7, 2, batch_first=True), 4, 2, 1),
        (nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True), 4, 2, 2),
        (nn.GRU(5, 7, batch_first=True, bidirectional=True), 3, 1, 2),
        (nn.RNN(5, 7, 2, batch_first=True, bias=False), 1, 2, 1),
    ],
)
def test_recurrent_layers_cost_their_matrices_at_every_step(
    module: nn.RNNBase, gates: int, layers: int, directions: int
) -> None:
    inputs = [5] + [7 * directions] * (layers - 1)
    per_step = sum(directions * gates * 7 * (width + 7) for width in inputs)
    assert count(network_of(module, 11, 5)).macs == 11 * per_step


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_time_counts_whether_it_stands_before_the_batch_or_behind(cell: str) -> None:
    behind, before = (recurrent_network(cell, batch_first=first, num_layers=2) for first in (True, False))
    assert count(before).macs == count(behind).macs > 0


def test_a_projected_lstm_counts_its_projection_and_passes_its_shape_on() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 8, batch_first=True, proj_size=3)
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.head(self.lstm(x)[0]))

    assert count(network_of(Projected(), 6, 5)).macs == 6 * (4 * 8 * (5 + 3) + 8 * 3 + 3 * 2)


def test_an_embedding_is_parameters_but_no_macs() -> None:
    module = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 4))
    cost = count(network_of(module, 6, dtype=torch.int64))
    assert (cost.parameters, cost.macs) == (50 * 8 + 8 * 4 + 4, 6 * 8 * 4)


def test_macs_by_node_has_a_node_for_every_layer() -> None:
    network = network_of(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), 3)
    nodes = {node.name for node in network.module.graph.nodes}
    assert sorted(count(network).macs_by_node.values()) == [8, 12]
    assert set(count(network).macs_by_node) < nodes


def test_tied_weights_count_once_and_buffers_never() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embedding.weight
            self.norm = nn.BatchNorm1d(10)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.norm(self.head(self.embedding(x))))

    network = trace(Tied().eval(), [Input("x", torch.int64, (BATCH,))])
    assert count(network).parameters == 10 * 4 + 2 * 10


def test_the_batch_counts_as_one_and_other_axes_as_in_the_example() -> None:
    network = network_of(nn.Linear(3, 4), Dimension("length", example=9), 3)
    assert count(network).macs == 9 * 3 * 4


def test_a_fixed_batch_is_counted_as_it_is() -> None:
    network = trace(nn.Linear(3, 4).eval(), [Input("x", torch.float32, (5, 3))])
    assert count(network).macs == 5 * 3 * 4


def test_an_operator_without_a_formula_is_named_never_silently_free() -> None:
    network = network_of(Apply(lambda x: torch.fft.rfft(x).abs()), 8)
    assert count(network).uncounted == ("_fft_r2c",)


def test_a_shape_that_depends_on_values_is_a_clear_error() -> None:
    network = network_of(Apply(lambda x: x * x.sum()), 4)
    graph = network.module.graph
    placeholder = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(placeholder):
        graph.call_function(torch.ops.aten.nonzero.default, (placeholder,))
    with pytest.raises(EngineError) as caught:
        count(network)
    assert caught.value.code == "shapes_unknown"
    assert caught.value.hint


def test_counting_touches_neither_weights_nor_much_time() -> None:
    network = network_of(nn.Sequential(nn.Conv2d(64, 1024, 3, padding=1), nn.BatchNorm2d(1024)), 64, 512, 512)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    start = time.perf_counter()
    cost = count(network)
    assert time.perf_counter() - start < 2  # computing 155 GMACs would take longer on any processor
    assert cost.macs == 512 * 512 * 1024 * 64 * 9
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
