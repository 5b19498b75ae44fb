"""A part of a network, alone and in copies, computes what it computes within the whole."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from tests.workers.engine.networks import Convolutional, image_network, recurrent_network, seeded
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.excerpt import COPY, excerpt
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find
from workers.engine.measure.form_times import calls_of


class _Recorder(Interpreter):
    """Every value that a network computes, by node name."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def _networks() -> dict[str, Network]:
    seeded()
    return {
        "convolutions": image_network(Convolutional(width=8)),
        "stacked": canonicalise(recurrent_network("lstm", num_layers=2)),
        "both ways": recurrent_network("gru", bidirectional=True),
    }


@pytest.mark.parametrize("name", ["convolutions", "stacked", "both ways"])
def test_every_layers_calls_compute_what_they_did(name: str) -> None:
    network = _networks()[name]
    recorder = _Recorder(network)
    with torch.no_grad():
        recorder.run(*network.examples())
        for layer in find(network):
            _check(network, layer, recorder.values)


def _check(network: Network, layer: Layer, values: dict[str, Any]) -> None:
    part = excerpt(network, calls_of(layer), 2)
    outputs = part(*(values[spec.name] for spec in part.inputs))
    half = len(outputs) // 2
    assert half
    known = [value for value in values.values() if isinstance(value, Tensor)]
    for first, second in zip(outputs[:half], outputs[half:], strict=True):
        assert torch.equal(first, second)
        assert any(first.shape == value.shape and torch.allclose(first, value) for value in known)


def test_every_copy_has_layers_of_its_own() -> None:
    network = _networks()["stacked"]
    layer = next(each for each in find(network) if "hh_l0" in each.name)
    part = excerpt(network, calls_of(layer), 3)
    names = {each.name for each in find(part)}
    assert {f"{COPY.format(place)}.{layer.name}" for place in range(3)} <= names
    weights = [dict(part.module.named_parameters())[name] for name in names if name.endswith(layer.name)]
    assert len({weight.data_ptr() for weight in weights}) == 3
