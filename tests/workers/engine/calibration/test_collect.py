"""One pass sees what every weight multiplies, and the gradients of a score that needs no labels."""

import gc
from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import BATCH, image_network, seeded, vector_network
from workers.engine.calibration.collect import Goal, _Observer, collect
from workers.engine.calibration.moments import Moments
from workers.engine.data import Batch
from workers.engine.errors import EngineError
from workers.engine.graph.network import Input, Network, trace
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find


def gathered(
    network: Network, batches: Sequence[Batch], goal: Goal = "classes", memory: int = 1 << 30
) -> tuple[dict[str, Moments], int]:
    """The moments by layer, and how many passes they took."""
    found: dict[str, Moments] = {}
    passes = 0

    def replay() -> Iterable[Batch]:
        nonlocal passes
        passes += 1
        return batches

    def keep(layer: Layer, moments: Moments) -> None:
        found[layer.name] = moments

    collect(network, find(network), replay, goal=goal, memory=memory, keep=keep)
    return found, passes


def _batches(*shape: int, count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [((torch.randn(*shape, generator=generator),), None) for _ in range(count)]


def test_the_inputs_moments_are_those_of_what_each_layer_multiplied() -> None:
    seeded()
    network = vector_network(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), 6)
    batches = _batches(8, 6)
    found, _ = gathered(network, batches)
    x = torch.cat([inputs[0] for inputs, _ in batches]).double()
    torch.testing.assert_close(found["0"].inputs, x.T @ x, rtol=1e-5, atol=1e-5)
    W, b = (network.module.get_parameter(f"0.{name}").double() for name in ("weight", "bias"))
    h = (x @ W.T + b).relu()
    torch.testing.assert_close(found["2"].inputs, (h.T @ h).detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["2"].total, h.sum(0).detach(), rtol=1e-5, atol=1e-5)
    assert found["2"].count == 24


def test_the_gradients_moment_tends_to_the_fisher_information() -> None:
    """For logits of a softmax the Fisher information is diag(p) − p pᵀ."""
    seeded()
    network = vector_network(nn.Linear(3, 4, bias=False), 3)
    x = torch.tensor([[0.5, -1.0, 2.0]])
    found, _ = gathered(network, [((x.expand(512, 3),), None)] * 8)
    p = network(x).softmax(-1).detach().double()[0]
    seen = found["weight"] if "weight" in found else next(iter(found.values()))
    assert seen.outputs is not None
    fisher = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(seen.outputs / seen.output_count, fisher, rtol=0.2, atol=0.02)


def test_of_values_the_gradients_do_not_depend_on_the_outputs_scale() -> None:
    seeded()
    small = vector_network(nn.Linear(3, 4), 3)
    large = small.copy()
    with torch.no_grad():
        for parameter in large.module.parameters():
            parameter.mul_(10.0)
    moments = [next(iter(gathered(n, _batches(8, 3), "values")[0].values())).outputs for n in (small, large)]
    assert moments[0] is not None
    assert moments[1] is not None
    torch.testing.assert_close(moments[0], 100 * moments[1], rtol=1e-4, atol=1e-9)


def test_less_memory_means_more_passes_and_the_same_moments() -> None:
    seeded()
    network = image_network(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Flatten()))
    at_once, one = gathered(network, _batches(4, 3, 8, 8))
    in_parts, two = gathered(network, _batches(4, 3, 8, 8), memory=1)
    assert (one, two) == (1, 2)
    for name, moments in at_once.items():
        assert torch.equal(moments.inputs, in_parts[name].inputs)


class _Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(ids) * attention_mask[..., None])
        return out


def test_padding_stays_out_of_the_moments() -> None:
    seeded()
    inputs = (Input("ids", torch.int64, (BATCH, 7)), Input("attention_mask", torch.int64, (BATCH, 7)))
    network = trace(_Masked().eval(), inputs)
    ids = torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < 5).long().expand(4, 7)
    found, _ = gathered(network, [((ids, mask), None)])
    assert found["head"].count == 4 * 5
    assert found["head"].output_count == 4 * 5


def test_the_network_is_untouched_and_has_no_gradients() -> None:
    seeded()
    network = vector_network(nn.Linear(6, 5), 6)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    gathered(network, _batches(8, 6))
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.module.parameters())


def test_outputs_that_are_not_numbers_are_a_clear_error() -> None:
    seeded()
    network = vector_network(nn.Linear(6, 5), 6)
    with pytest.raises(EngineError) as raised:
        gathered(network, [((torch.full((2, 6), torch.nan),), None)])
    assert raised.value.code == "outputs_not_finite"


def test_a_batchs_graph_is_gone_before_the_next() -> None:
    network = vector_network(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), 8)
    alive: list[int] = []

    def batches() -> Iterable[Batch]:
        for batch in _batches(4, 8):
            yield batch
            alive.append(sum(isinstance(each, _Observer) for each in gc.get_objects()))

    gc.collect()
    gc.disable()
    try:
        collect(network, find(network), batches, goal="classes", memory=1 << 30, keep=lambda *_: None)
    finally:
        gc.enable()
    assert alive == [0, 0, 0]
