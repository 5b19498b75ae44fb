"""Block after block, a compressed network learns the original's activations: no labels, few rows.

An anchor is a value that both networks have: the output of a factorised layer, where it is one call there,
one call here and alike in shape; last of all the outputs. A block is what the compressed network computes for
an anchor and has not computed for one before it. It is given what the compressed network made of the rows so
far, errors included, and learns to come to what the original has at the anchor.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from workers.engine.graph.network import Network
from workers.engine.padding import has_positions, real_positions

_LAST = ("left", "second", "factor_out")  # what layers call the factor that makes a layer's output
_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Block:
    """One block: ‖y' − y‖² / ‖y‖² at its anchor, over the rows that judge, before and after. What became no
    better was undone."""

    name: str
    before: float
    after: float


def refine_blocks(
    student: Network,
    teacher: Network,
    batches: Sequence[tuple[Tensor, ...]],
    judging: Sequence[tuple[Tensor, ...]] = (),
    *,
    steps: int,
    learning_rate: float,
    advance: Callable[[int, int], None] = lambda _done, _of: None,
) -> list[Block]:
    """Train `student` in place with `steps` of Adam for each block, a batch a step, on a cosine down to zero.

    The parameters that a block is the first to read are trained. Statistics of a BatchNorm stay, dropout is
    off. `judging` are rows to learn nothing from: a block that does no better on them stays as it was. If
    there are none, the rows that it learned from judge. What later blocks read of both networks is held for
    all batches.
    `advance` hears of every block.
    """
    ours, theirs = (_Walk(network, [*batches, *judging]) for network in (student, teacher))
    anchors = list(_anchors(student, teacher))
    refined = []
    for index, (name, here, there) in enumerate(anchors):
        theirs.walk(theirs.behind(there), there)
        block = ours.behind(here)
        learned = _Block(ours, block, here, [values[there] for values in theirs.values], len(batches))
        if learned.is_comparable:
            refined.append(Block(name, *learned.refine(steps, learning_rate)))
            ours.walk(block, here)
        advance(index + 1, len(anchors))
    return refined


def _anchors(student: Network, teacher: Network) -> Iterator[tuple[str, Node, Node]]:
    """Every anchor's name, node here and node there, in the order in which they are computed here."""
    users = {str(node.target): list(node.users) for node in teacher.module.graph.find_nodes(op="get_attr")}
    found: dict[Node, tuple[str, Node, Node]] = {}
    for node in student.module.graph.find_nodes(op="get_attr"):
        weight, _, part = str(node.target).rpartition("_")
        if part == "out":
            weight, part = weight.removesuffix("_factor"), "factor_out"
        there = users.get(weight, [])
        if part in _LAST and len(there) == len(node.users) == 1:
            [here] = node.users
            found[here] = (weight.removesuffix(".weight"), here, there[0])
    yield from (found[node] for node in student.module.graph.nodes if node in found)
    yield "outputs", student.module.graph.output_node(), teacher.module.graph.output_node()


class _Walk:
    """A network computed so far and no further, for every batch."""

    def __init__(self, network: Network, batches: Sequence[tuple[Tensor, ...]]) -> None:
        self._module = network.module
        self._interpreter = Interpreter(network.module)
        inputs = network.module.graph.find_nodes(op="placeholder")
        self._known = set(inputs)
        self.values: list[dict[Node, Any]] = [dict(zip(inputs, batch, strict=True)) for batch in batches]
        self.positions = [real_positions(network.inputs, batch) for batch in batches]

    def behind(self, node: Node) -> list[Node]:
        """What is still to be computed for a node, itself included, in order."""
        needed: set[Node] = set()
        ahead = [node]
        while ahead:
            current = ahead.pop()
            if current not in needed and current not in self._known:
                needed.add(current)
                ahead += current.all_input_nodes
        return [each for each in self._module.graph.nodes if each in needed]

    def compute(self, block: Sequence[Node], batch: int) -> dict[Node, Any]:
        """The values of a batch, those of `block` among them."""
        env: dict[Node, Any] = dict(self.values[batch])
        self._interpreter.env = env
        for node in block:
            env[node] = self._output(node) if node.op == "output" else self._interpreter.run_node(node)
        return env

    def walk(self, block: Sequence[Node], anchor: Node) -> None:
        """Go on by a block. Of the values those stay that something further on reads, and the anchor's."""
        self._known |= set(block)
        with torch.no_grad():
            for batch in range(len(self.values)):
                env = self.compute(block, batch)
                self.values[batch] = {node: value for node, value in env.items() if self._lasts(node, anchor)}

    def parameters(self, block: Sequence[Node]) -> list[nn.Parameter]:
        """What a block reads and none before it did."""
        read = [self._interpreter.fetch_attr(str(node.target)) for node in block if node.op == "get_attr"]
        return [value for value in read if isinstance(value, nn.Parameter) and value.is_floating_point()]

    def _lasts(self, node: Node, anchor: Node) -> bool:
        return node is anchor or any(user not in self._known for user in node.users)

    def _output(self, node: Node) -> Any:
        return self._interpreter.fetch_args_kwargs_from_env(node)[0][0]


class _Block:
    """A block, and what it should come to for every batch; the first batches are to learn from."""

    def __init__(
        self, walk: _Walk, block: Sequence[Node], anchor: Node, wanted: Sequence[Any], learning: int
    ) -> None:
        self._learning = learning
        self._judging = range(learning, len(wanted)) or range(learning)
        self._walk, self._block, self._anchor = walk, block, anchor
        self._wanted = [_floating(values) for values in wanted]
        self._parameters = walk.parameters(block)

    @property
    def is_comparable(self) -> bool:
        """Whether the anchor's values look alike in both networks."""
        with torch.no_grad():
            found = _floating(self._walk.compute(self._block, 0)[self._anchor])
        shapes, wanted = ([value.shape for value in values] for values in (found, self._wanted[0]))
        return shapes == wanted and bool(shapes)

    def refine(self, steps: int, learning_rate: float) -> tuple[float, float]:
        """The error before and after."""
        before = self._whole_error()
        if not self._parameters:
            return before, before
        start = [parameter.detach().clone() for parameter in self._parameters]
        self._train(steps, learning_rate)
        after = self._whole_error()
        if after < before:
            return before, after
        with torch.no_grad():
            for parameter, value in zip(self._parameters, start, strict=True):
                parameter.copy_(value)
        return before, before

    def _train(self, steps: int, learning_rate: float) -> None:
        optimizer = torch.optim.Adam(self._parameters, lr=learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))
        )
        for step in range(steps):
            errors = self._errors(step % self._learning)
            error = (errors[:, 0] / errors[:, 1]).mean()
            optimizer.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]  # torch's own gap
            nn.utils.clip_grad_norm_(self._parameters, _GRADIENT_NORM)
            optimizer.step()
            scheduler.step()

    def _whole_error(self) -> float:
        with torch.no_grad():
            errors = torch.stack([self._errors(batch) for batch in self._judging]).sum(0)
        return float((errors[:, 0] / errors[:, 1]).mean())

    def _errors(self, batch: int) -> Tensor:
        """Squared error and the original's energy of every tensor of a batch at the anchor, (tensors, 2)."""
        found = _floating(self._walk.compute(self._block, batch)[self._anchor])
        pairs, positions = zip(found, self._wanted[batch], strict=True), self._walk.positions[batch]
        return torch.stack([_squares(ours, theirs, positions) for ours, theirs in pairs])


def _floating(values: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _squares(ours: Tensor, theirs: Tensor, positions: Tensor | None) -> Tensor:
    """Padding does not count."""
    if positions is not None and has_positions(theirs, positions):
        ours, theirs = ours[positions], theirs[positions]
    ours, theirs = ours.float(), theirs.float()
    tiny = torch.finfo(theirs.dtype).tiny
    return torch.stack([(ours - theirs).square().sum(), theirs.square().sum() + tiny])
