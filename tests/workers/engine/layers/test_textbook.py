"""The textbook's numbers in docs/methods.md: by their formulas, and counted in rewritten graphs."""

from collections.abc import Callable
from math import prod

import pytest
from torch import nn

from tests.workers.engine.layers.cells import assert_costs, rewritten
from tests.workers.engine.layers.table import DOCUMENT
from tests.workers.engine.networks import image_network, recurrent_network, seeded, vector_network
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network
from workers.engine.layers.find import find

TEXTBOOK = DOCUMENT.split("\n## Textbook examples\n")[1]


def matrix() -> Network:
    return vector_network(nn.Linear(1000, 1000, bias=False), 1000)


def kernel() -> Network:
    return image_network(nn.Conv2d(256, 256, 3, bias=False), 256, size=4)


def recurrent() -> Network:
    """Four gates of 128 units over 512 inputs."""
    return canonicalise(recurrent_network("lstm", width=512, hidden=128, bias=False))


@pytest.mark.parametrize(
    ("make", "method", "rank", "shapes"),
    [
        (matrix, "svd", (100,), [(1000, 100), (100, 1000)]),
        (kernel, "full_tucker", (16, 16, 3, 3), [(16, 16, 3, 3), (256, 16), (256, 16), (3, 3), (3, 3)]),
        (recurrent, "tucker", (4, 32, 64), [(4, 32, 64), (4, 4), (128, 32), (512, 64)]),
        (recurrent, "svd", (44,), [(512, 44), (44, 512)]),
    ],
)
def test_an_example_has_as_many_parameters_as_its_formula_and_its_graph(
    make: Callable[[], Network], method: str, rank: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> None:
    seeded()
    network = make()
    layer = find(network)[0]
    assert layer.bias_parameters == 0
    other, changes = rewritten(network, method, lambda _: rank)
    stored = f"{layer.site.weight.target}_"
    factors = [p.numel() for name, p in other.module.named_parameters() if name.startswith(stored)]
    assert sorted(factors) == sorted(map(prod, shapes))
    assert changes[0].form.parameters == sum(factors) < layer.parameters
    assert_costs(network, other, changes)
    for number in (layer.parameters, sum(factors)):
        assert f"{number:,}" in TEXTBOOK


def test_the_textbooks_recurrent_factors_are_larger_than_their_matrix() -> None:
    core, factors = 512 * 32 * 32, 2 * 512 * 32
    assert core + factors > 512 * 512
    for number in (core + factors, 512 * 512, factors):
        assert f"{number:,}" in TEXTBOOK


def test_of_a_matrix_without_structure_an_svd_of_the_same_size_loses_less() -> None:
    seeded()
    [layer, _] = find(recurrent())
    tucker, svd = layer.methods["tucker"].form((4, 32, 64)), layer.methods["svd"].form((44,))
    assert svd.parameters < tucker.parameters
    assert svd.error < tucker.error
