"""Block refinement brings a compressed network nearer to the original, and touches nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter

from tests.workers.engine.networks import (
    BATCH,
    Convolutional,
    draw_all,
    image_network,
    recurrent_network,
    seeded,
    token_network,
    vector_network,
)
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Input, Network, trace
from workers.engine.layers.find import find
from workers.engine.refine_blocks import Block, refine_blocks

Batches = list[tuple[Tensor, ...]]


def _compressed(teacher: Network, **methods: tuple[str, tuple[int, ...]]) -> Network:
    """A copy with some layers factorised, by name (dots as underscores)."""
    student = teacher.copy()
    for layer in find(student):
        if (wanted := methods.get(layer.name.replace(".", "_"))) is not None:
            layer.methods[wanted[0]].rewrite(wanted[1])
    surgery.prune(student.module)
    return trace(student.module, student.inputs)


def _batches(network: Network, count: int = 4, rows: int = 8) -> Batches:
    whole = draw_all(network, count * rows)
    return list(zip(*(torch.split(tensor, rows) for tensor in whole), strict=True))


def _error(student: Network, teacher: Network, batches: Batches) -> float:
    with torch.no_grad():
        pairs = [(student(*inputs), teacher(*inputs)) for inputs in batches]
    lost = sum(float((ours - theirs).square().sum()) for ours, theirs in pairs)
    return lost / sum(float(theirs.square().sum()) for _, theirs in pairs)


def _refine(student: Network, teacher: Network, batches: Batches, steps: int = 40) -> list[Block]:
    return refine_blocks(student, teacher, batches, steps=steps, learning_rate=3e-3)


def _images() -> tuple[Network, Network]:
    seeded()
    teacher = image_network(Convolutional(width=16))
    return teacher, _compressed(
        teacher, block_0=("tucker", (8, 8)), shortcut=("svd", (6,)), head=("svd", (2,))
    )


def test_every_block_comes_nearer_and_so_does_the_whole() -> None:
    teacher, student = _images()
    batches = _batches(teacher)
    before = _error(student, teacher, batches)
    blocks = _refine(student, teacher, batches)
    assert [block.name for block in blocks] == ["block.0", "shortcut", "head", "outputs"]
    assert all(block.after < block.before for block in blocks[:3])
    assert blocks[-1].after == pytest.approx(_error(student, teacher, batches), rel=1e-4)
    assert _error(student, teacher, batches) < 0.7 * before


def test_a_block_is_given_what_the_compressed_network_makes_of_the_rows() -> None:
    teacher, student = _images()
    batches = _batches(teacher)
    first, second, *_ = _refine(student, teacher, batches, steps=0)
    assert first.before == pytest.approx(
        _distance(student, teacher, batches, "block.0.weight", "factor_out"), rel=1e-4
    )
    assert second.before == pytest.approx(
        _distance(student, teacher, batches, "shortcut.weight", "second"), rel=1e-4
    )
    assert first.after == first.before


def _distance(student: Network, teacher: Network, batches: Batches, weight: str, factor: str) -> float:
    """The same by cutting both networks short after the layer of a weight."""
    cut = []
    for network, path in ((student, f"{weight}_{factor}"), (teacher, weight)):
        copy = network.copy()
        graph = copy.module.graph
        [read] = [node for node in graph.find_nodes(op="get_attr") if str(node.target) == path]
        graph.output_node().args = tuple(read.users)
        graph.eliminate_dead_code()
        cut.append(copy.module)
    with torch.no_grad():
        pairs = [[Interpreter(module).run(*inputs) for module in cut] for inputs in batches]
    lost = sum(float((ours - theirs).square().sum()) for ours, theirs in pairs)
    return lost / sum(float(theirs.square().sum()) for _, theirs in pairs)


def test_what_becomes_worse_is_undone() -> None:
    teacher, student = _images()
    before = {path: tensor.clone() for path, tensor in student.module.state_dict().items()}
    blocks = refine_blocks(student, teacher, _batches(teacher), steps=5, learning_rate=1e3)
    assert all(block.after == block.before for block in blocks)
    after = student.module.state_dict()
    assert all(torch.equal(tensor, after[path]) for path, tensor in before.items())


def test_rows_that_judge_decide_and_teach_nothing() -> None:
    learning, judging = _batches(_images()[0])[:1], _batches(_images()[0])[1:]
    ends = []
    for rows in (judging, [(torch.randn(8, 3, 8, 8),)]):
        teacher, student = _images()
        blocks = refine_blocks(student, teacher, learning, rows, steps=40, learning_rate=3e-3)
        assert blocks[0].after < blocks[0].before
        ends.append(student.module.get_parameter("block.0.weight_core").detach())
    assert torch.equal(*ends)
    teacher, student = _images()
    before = {path: tensor.clone() for path, tensor in student.module.state_dict().items()}
    other = [(100 * torch.ones(8, 3, 8, 8),)]
    blocks = refine_blocks(student, teacher, learning, other, steps=40, learning_rate=0.3)
    worse = [block.name for block in blocks if block.after == block.before]
    assert "block.0" in worse
    after = student.module.state_dict()
    assert all(torch.equal(before[path], after[path]) for path in before if path.startswith("block.0"))


def test_the_original_and_statistics_stay_as_they_are() -> None:
    teacher, student = _images()
    kept = [
        *teacher.copy().module.parameters(),
        *student.copy().module.buffers(),
    ]
    _refine(student, teacher, _batches(teacher))
    now = [*teacher.module.parameters(), *student.module.buffers()]
    assert all(torch.equal(one, other) for one, other in zip(kept, now, strict=True))


def test_the_same_rows_give_the_same_weights() -> None:
    ends = []
    for _ in range(2):
        teacher, student = _images()
        _refine(student, teacher, _batches(teacher), steps=5)
        ends.append(torch.cat([parameter.flatten() for parameter in student.module.parameters()]))
    assert torch.equal(*ends)


class _Residual(nn.Module):
    """Two branches that join, one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.twice, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu() + self.b(x)
        out: Tensor = self.out(self.twice(self.twice(x).relu()))
        return out


class _Masked(nn.Module):
    """A layer over positions, some of which are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.layer(x) * mask[..., None].float().exp()
        return out


def _tokens() -> Network:
    return token_network(nn.Sequential(nn.Embedding(12, 10), nn.Linear(10, 10), nn.ReLU()))


@pytest.mark.parametrize(
    ("make", "methods", "names"),
    [
        (
            lambda: vector_network(_Residual(), 12),
            dict.fromkeys(("a", "b", "twice", "out"), ("svd", (4,))),
            ["a", "b", "out", "outputs"],
        ),
        (_tokens, {"0": ("svd", (4,)), "1": ("svd", (4,))}, ["0", "1", "outputs"]),
        (lambda: vector_network(nn.Linear(12, 12), 12), {"": ("tensor_train", (2, 2))}, ["outputs"]),
        (
            lambda: recurrent_network("gru", sequence_only=True, width=10, hidden=12),
            {"rnn_weight_ih_l0": ("svd", (3,))},
            ["rnn.weight_ih_l0", "outputs"],
        ),
        (
            lambda: recurrent_network("lstm", sequence_only=True, width=10, hidden=12),
            {"rnn_weight_hh_l0": ("svd", (3,))},
            ["outputs"],
        ),
    ],
)
def test_branches_tables_trains_and_loops(make: Any, methods: Any, names: list[str]) -> None:
    seeded()
    teacher = canonicalise(make())
    if "" in methods:
        [layer] = find(teacher)
        methods = {layer.name.replace(".", "_"): methods[""]}
    student = _compressed(teacher, **methods)
    batches = _batches(teacher)
    before = _error(student, teacher, batches)
    blocks = _refine(student, teacher, batches)
    assert [block.name for block in blocks] == names
    assert 0 < _error(student, teacher, batches) < before


def test_padding_teaches_nothing() -> None:
    seeded()
    specs = [Input("x", torch.float32, (BATCH, 6, 12)), Input("mask", torch.int64, (BATCH, 6))]
    teacher = trace(_Masked().eval(), specs)
    ends = []
    for padding in (0.0, 50.0):
        student = _compressed(teacher, layer=("svd", (4,)))
        x, mask = torch.randn(8, 6, 12, generator=torch.Generator().manual_seed(0)), torch.ones(8, 6).long()
        mask[:, 4:] = 0
        x[:, 4:] = padding
        refine_blocks(student, teacher, [(x, mask)], steps=5, learning_rate=1e-2)
        ends.append(torch.cat([parameter.flatten() for parameter in student.module.parameters()]))
    assert torch.equal(*ends)
