"""Forms of one layer are timed beside the dense one, each as the file that would ship."""

from pathlib import Path

import pytest
from torch import nn

from tests.workers.engine.networks import Convolutional, image_network, recurrent_network, seeded
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network
from workers.engine.layers.base import Form, Layer
from workers.engine.layers.find import find
from workers.engine.measure.form_times import time_forms


def _layer(network: Network, name: str) -> Layer:
    return next(layer for layer in find(network) if layer.name.endswith(name))


def _forms(layer: Layer, *methods: str) -> list[Form]:
    return [next(iter(layer.methods[method].forms(2))) for method in methods]


@pytest.mark.parametrize(
    ("name", "methods"), [("block.0", ("tucker", "channel_svd")), ("head", ("svd",)), ("hh_l0", ("svd",))]
)
def test_dense_comes_first_and_every_form_has_its_time(
    tmp_path: Path, name: str, methods: tuple[str, ...]
) -> None:
    seeded()
    recurrent = canonicalise(recurrent_network("lstm", num_layers=2, width=16, hidden=32))
    network = recurrent if name == "hh_l0" else image_network(Convolutional(width=16))
    layer = _layer(network, name)
    before = {path: tensor.clone() for path, tensor in network.module.named_parameters()}
    folder = tmp_path / "timing"
    found = time_forms(network, layer, _forms(layer, *methods), find, folder, threads=1, seconds=0.0)
    assert len(found) == 1 + len(methods)
    assert all(each.p50_ms > 0 and each.runs >= 20 and each.batch == 1 for each in found)
    assert not folder.exists()
    assert all(bool((before[path] == tensor).all()) for path, tensor in network.module.named_parameters())


def test_a_wide_layer_is_faster_at_a_tenth_of_its_rank(tmp_path: Path) -> None:
    seeded()
    network = image_network(nn.Sequential(nn.Conv2d(3, 256, 1), nn.Conv2d(256, 256, 3, padding=1)), size=16)
    layer = _layer(network, "1")
    form = layer.methods["channel_svd"].form((8,))
    dense, thin = time_forms(network, layer, [form], find, tmp_path / "t", threads=1, seconds=0.5)
    assert thin.p50_ms < dense.p50_ms
