"""The table of docs/methods.md holds what the code offers: every kind of layer, every method, no other."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from torch import nn

from app.methods.catalogue import CATALOGUE
from tests.workers.engine.layers import test_rewrite as plain
from tests.workers.engine.layers.recurrent import test_recurrent as recurrent
from tests.workers.engine.layers.test_attention import NETWORKS as ATTENTION
from tests.workers.engine.networks import image_network, recurrent_network
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import trace
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find
from workers.engine.measure import cost

DOCUMENT = Path(__file__).parents[4] / "docs" / "methods.md"


def documented() -> dict[str, set[str]]:
    """The methods of each kind in the table."""
    cells: dict[str, set[str]] = defaultdict(set)
    for line in DOCUMENT.read_text().splitlines():
        cell = [part.strip() for part in line.split("|")[1:-1]]
        if len(cell) == 7 and cell[0] not in ("Layer", "---"):
            for kind in [cell[0]] if re.match("conv|rnn", cell[0]) else cell[0].split(", "):
                cells[kind] |= set(re.findall(r"`(\w+)`", cell[1]))
    return cells


def found() -> Iterable[Layer]:
    """The layers of the networks that every method of every kind is tested on."""
    yield from find(image_network(nn.Conv2d(4, 4, 3, groups=4), 4))
    for make in plain.CASES.values():
        yield from find(make())
    for name in recurrent.CASES:
        yield from find(recurrent.canonical(name))
    for network in ATTENTION.values():
        yield from find(network(), joint=True)


def kind_of(layer: Layer) -> str:
    """As the table calls it."""
    if layer.kind.startswith("conv"):
        if "depthwise" in str(layer.reason):
            return "depthwise conv"
        name = "transposed conv" if "transpose" in layer.kind else "conv"
        size = "k×k" if max(layer.weight.shape[2:]) > 1 else "1×1"
        grouped = ", grouped" if layer.groups > 1 and "transposed" not in name and size == "k×k" else ""
        return f"{name} {size}{grouped}"
    if layer.kind == "embedding" and layer.tied:
        return "tied embedding"
    return {"attention": "attention pair"}.get(layer.kind, layer.kind)


def test_the_table_and_the_code_agree_on_every_cell() -> None:
    offered: dict[str, set[str]] = defaultdict(set)
    for layer in found():
        offered[kind_of(layer)] |= set(layer.methods)
    offered["rnn, stacked or bidirectional"] = offered["rnn"] & {"tucker", "cp"}
    offered["rnn"] -= {"tucker", "cp"}
    assert dict(offered) == documented()


def test_the_api_names_the_kinds_that_take_a_method() -> None:
    offered: dict[str, set[str]] = defaultdict(set)
    for layer in found():
        for method in layer.methods:
            offered[method].add(layer.kind)
    named = {info.name.value: set(info.layers) for info in CATALOGUE.methods if info.name.value != "keep"}
    assert set(offered) == set(named)
    assert not any(offered[method] - kinds for method, kinds in named.items())


@pytest.mark.parametrize(
    ("method", "rank", "weights"), [("tucker", (4, 32, 64), 45_072), ("svd", (44,), 45_056)]
)
def test_what_compresses_the_textbooks_recurrent_matrix(
    method: str, rank: tuple[int, ...], weights: int
) -> None:
    assert 512 * 32 * 32 + 2 * 512 * 32 == 557_056 > 512 * 512 == 262_144
    network = canonicalise(recurrent_network("lstm", width=512, hidden=128))
    before = cost.parameters(network)
    layer = find(network)[0]
    assert layer.weight.shape == (512, 512)
    layer.methods[method].rewrite(rank)
    surgery.prune(network.module)
    rewritten = trace(network.module, network.inputs)
    assert cost.parameters(rewritten) == before - 512 * 512 + weights
