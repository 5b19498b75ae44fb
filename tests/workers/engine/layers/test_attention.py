"""Queries with keys, and values with outputs, as one factorization: in cost, and in error."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.layers.cells import (
    ATTENTION_CASES,
    HEADS,
    WIDTH,
    assert_same,
    edited,
    most,
    network_of,
)
from tests.workers.engine.networks import Attention, FusedAttention, draw_all, seeded, sequence_network
from workers.engine.calibration.collect import collect
from workers.engine.calibration.moments import Moments, Sides
from workers.engine.calibration.moments import weighting as weights
from workers.engine.decomposition.whitening import root
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find
from workers.engine.layers.substitute import substitute
from workers.engine.layers.weighting import PLAIN, Weighting
from workers.engine.measure import cost

SIZE = WIDTH // HEADS
SIDES: tuple[Sides, ...] = ("none", "inputs", "two_sided")
EVERY = pytest.mark.parametrize("case", ATTENTION_CASES)


def rewritten(
    network: Network, rank: int, which: Sequence[int] = (0, 1), weighting: Weighting = PLAIN
) -> Network:
    """A copy whose pairs have heads of `rank` elements."""
    copy = network.copy()
    pairs = find(copy, joint=True)
    for place in which:
        pairs[place].weigh = lambda: weighting
        pairs[place].methods["joint_svd"].rewrite((rank,))
    surgery.prune(copy.module)
    return trace(copy.module, copy.inputs)


def names(layers: Sequence[Layer]) -> list[str]:
    return [layer.name for layer in layers]


def test_pairs_are_found_only_when_asked_for() -> None:
    network = network_of("attention to itself")
    assert names(find(network)) == ["q", "k", "v", "o"]
    pairs = find(network, joint=True)
    assert names(pairs) == ["q+k", "v+o"]
    assert all(pair.kind == "attention" and list(pair.methods) == ["joint_svd"] for pair in pairs)
    assert all(pair.methods["joint_svd"].max_rank == (SIZE,) for pair in pairs)


@EVERY
def test_smaller_heads_of_one_pair_cost_what_an_independent_count_says(case: str) -> None:
    network = network_of(case)
    pairs, before = find(network, joint=True), cost.count(network)
    assert sum(pair.macs for pair in pairs) == before.macs
    assert sum(pair.parameters for pair in pairs) == before.parameters
    pair, after = pairs[0], cost.count(rewritten(network, 3, (0,)))
    form = pair.methods["joint_svd"].form((3,))
    assert after.macs - before.macs == form.macs - pair.macs
    assert after.parameters - before.parameters == form.parameters - pair.parameters
    assert all(each.saves(each.methods["joint_svd"].form((3,))) for each in pairs)


def products(network: Network, *members: str) -> Tensor:
    """W_qᵀ W_k of every head, from what the graph holds."""
    first, second = (network.module.get_parameter(name).detach().double() for name in members)
    heads = zip(first.chunk(HEADS), second.chunk(HEADS), strict=True)
    return torch.stack([a.T @ b for a, b in heads])


@pytest.mark.parametrize("seen", [False, True])
def test_the_predicted_error_is_that_of_the_products_and_no_less_is_possible(seen: bool) -> None:
    seeded()
    network = sequence_network(Attention(WIDTH, HEADS, bias=False), WIDTH)
    X = torch.randn(200, WIDTH).double() * torch.logspace(0, -1.5, WIDTH)
    half = root(X.T @ X / len(X)) if seen else root(torch.eye(WIDTH))
    weighting = Weighting(right=half) if seen else PLAIN
    pair = find(network, joint=True)[0]
    pair.weigh = lambda: weighting
    predicted = pair.methods["joint_svd"].error((3,))
    M = products(network, "q.weight", "k.weight")
    other = rewritten(network, 3, (0,), weighting)
    change = M - products(other, "q.weight_joint", "k.weight_joint")
    energy = (half.L.T @ M @ half.L).square().sum()
    assert predicted == pytest.approx(float((half.L.T @ change @ half.L).square().sum() / energy), rel=1e-4)
    least = torch.linalg.svdvals(half.L.T @ M @ half.L).square()[:, 3:].sum() / energy
    assert predicted == pytest.approx(float(least), rel=1e-4)


def test_data_lowers_the_error_of_the_output_with_the_bias_as_a_part_of_it() -> None:
    seeded()
    network = sequence_network(Attention(WIDTH, HEADS), WIDTH)
    x = 2.0 * torch.randn(16, 20, WIDTH) * torch.logspace(0, -1.5, WIDTH) + torch.randn(WIDTH)
    flat = x.flatten(0, 1).double()
    mean = flat.mean(0)
    seen = Weighting(right=root((flat - mean).T @ (flat - mean) / len(flat)), mean=mean)
    with torch.no_grad():
        errors = [
            float((rewritten(network, 3, which, weighting)(x) - network(x)).square().mean())
            for which in ((0,), (1,))
            for weighting in (PLAIN, seen)
        ]
    assert errors[1] < 0.7 * errors[0]
    assert errors[3] < 0.7 * errors[2]


def test_what_a_calibration_sees_of_a_pair_lowers_its_error() -> None:
    seeded()
    network = sequence_network(Attention(WIDTH, HEADS), WIDTH)
    generator = torch.Generator().manual_seed(2)
    scale = torch.logspace(0.5, -1.5, WIDTH)
    seen, fresh = (torch.randn(40, 12, WIDTH, generator=generator) * scale for _ in range(2))
    moments: dict[str, Moments] = {}
    collect(
        network,
        find(network, joint=True),
        lambda: [((seen,), None)],
        goal="values",
        memory=1 << 30,
        keep=lambda layer, found: moments.update({layer.name: found}),
    )
    with torch.no_grad():
        for place, name in enumerate(("q+k", "v+o")):
            plain, *calibrated = (
                float((rewritten(network, 3, (place,), weighting)(fresh) - network(fresh)).square().mean())
                for weighting in (weights(moments[name], sides, centred=True) for sides in SIDES)
            )
            assert max(calibrated) < 0.8 * plain


def test_the_dense_tensors_that_a_pair_stands_for_have_its_effect() -> None:
    seeded()
    network = sequence_network(Attention(WIDTH, HEADS), WIDTH)
    [x] = draw_all(network, 3, 5)
    for place in (0, 1):
        form = find(network, joint=True)[place].methods["joint_svd"].form((3,))
        _, dense = substitute(find(network.copy(), joint=True)[place], form)
        copy = network.copy()
        copy.module.load_state_dict(dense, strict=False)
        torch.testing.assert_close(copy(x), rewritten(network, 3, (place,))(x), rtol=1e-4, atol=1e-5)


def test_gradients_weight_every_head_by_its_own_block() -> None:
    seeded()
    pair = find(sequence_network(Attention(WIDTH, HEADS, bias=False), WIDTH), joint=True)[1]
    gradients = torch.arange(1.0, WIDTH + 1).double()
    pair.weigh = lambda: Weighting(left=root(torch.diag(gradients)))
    heads = (gradients.sqrt()[:, None] * pair.matrix).chunk(HEADS)
    energies = torch.stack([torch.linalg.svdvals(head).square() for head in heads])
    expected = float(energies[:, 3:].sum() / energies.sum())
    assert pair.methods["joint_svd"].error((3,)) == pytest.approx(expected, rel=1e-4)


class Normalised(Attention):
    """Normalises its queries."""

    def __init__(self) -> None:
        super().__init__(WIDTH, HEADS)
        self.norm = nn.LayerNorm(SIZE)

    def split(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(super().split(x))
        return out


class Reused(Attention):
    """Has another use for its queries."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        out: Tensor = super().forward(x, context) + self.q(x)
        return out


def test_what_something_else_is_done_to_is_not_paired() -> None:
    assert names(find(sequence_network(Normalised(), WIDTH), joint=True)) == ["q", "k", "v", "o"]
    assert names(find(sequence_network(Reused(WIDTH, HEADS), WIDTH), joint=True)) == ["q", "k", "v+o"]


def test_a_fused_projection_stays_one_linear_layer() -> None:
    seeded()
    network = sequence_network(FusedAttention(WIDTH, HEADS), WIDTH)
    assert names(find(network, joint=True)) == ["qkv", "o"]
    assert_same(network, edited(network, "svd", most)[0])
