"""Loops over time in a graph: both kinds compute the same, and everything that walks graphs follows them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from tests.workers.engine.networks import BATCH, LENGTH, seeded
from workers.engine.graph import scan, surgery
from workers.engine.graph.network import Input, Network, call_nodes, trace
from workers.engine.graph.shapes import shapes
from workers.engine.measure import cost

aten = torch.ops.aten


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 4)
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.gate(x).sigmoid()
        return gates, gates @ self.weight


def step(h: Any, gate: Any, weight: Any) -> Sequence[Any]:
    h = aten.tanh.default(aten.addmm.default(gate, h, weight))
    return [h, aten.mul.Tensor(h, gate)]


def looping() -> Network:
    """h' = tanh(h W + gate), emitting h' ⊙ gate, over the middle axis of (batch, length, 5)."""
    seeded()
    network = trace(Gated().eval(), [Input("x", torch.float32, (BATCH, LENGTH, 5))])
    module = network.module
    [sigmoid] = [node for node in call_nodes(module) if node.target is aten.sigmoid.default]
    [weight] = [node for node in module.graph.nodes if node.target == "weight"]
    output = module.graph.output_node()
    with module.graph.inserting_before(output):
        gates = surgery.call(module, aten.transpose.int, sigmoid, 0, 1)
        first = surgery.call(module, aten.mul.Tensor, surgery.call(module, aten.select.int, gates, 0, 0), 0)
        last, sequence = scan.insert(module, step, [first], [gates], [weight])
        output.args = ((last, surgery.call(module, aten.transpose.int, sequence, 0, 1)),)
    surgery.prune(module)
    return trace(module, network.inputs)


def expected(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    module = network.module
    gates = (x @ module.get_parameter("gate.weight").T + module.get_parameter("gate.bias")).sigmoid()
    h, emitted = torch.zeros(len(x), 4), []
    for gate in gates.unbind(1):
        h = torch.tanh(h @ module.get_parameter("weight") + gate)
        emitted.append(h * gate)
    return h, torch.stack(emitted, 1)


@pytest.mark.parametrize("training", [False, True])
def test_values_and_gradients_are_those_of_the_recurrence(training: bool) -> None:
    network = looping()
    surgery.set_training(network.module, training)
    for size in ((1, 1), (3, 7)):
        x = torch.randn(*size, 5)
        gradients = []
        for outputs in (network(x), expected(network, x)):
            network.module.zero_grad()
            torch.cat([output.flatten() for output in outputs]).square().sum().backward()  # type: ignore[no-untyped-call]
            gradients.append(
                torch.cat([p.grad.flatten() for p in network.module.parameters() if p.grad is not None])
            )
        torch.testing.assert_close(tuple(network(x)), expected(network, x))
        torch.testing.assert_close(*gradients)


def test_training_takes_the_plain_loop_and_evaluation_the_scan_again() -> None:
    module = looping().module
    found = []
    for training in (True, False):
        surgery.set_training(module, training)
        found.append({node.target for node in call_nodes(module)} & {scan.SCAN, scan.loop})
    assert found == [{scan.loop}, {scan.SCAN}]


def test_a_copy_shares_nothing_and_goes_through_another_trace() -> None:
    network, x = looping(), torch.randn(2, 6, 5)
    copy = trace(network.copy().module, network.inputs)
    wanted = [output.clone() for output in network(x)]
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.zero_()
    assert all(map(torch.equal, copy(x), wanted))


def test_a_loop_costs_its_body_at_every_step_of_the_example() -> None:
    network = looping()
    counted = cost.count(network)
    assert counted.macs == 6 * (5 * 4 + 4 * 4)
    assert counted.uncounted == ()
    results = network.module.graph.output_node().all_input_nodes
    assert [shapes(network)[node.name] for node in results] == [(1, 4), (1, 6, 4)]


def test_the_body_of_a_loop_that_is_gone_is_pruned() -> None:
    module = looping().module
    output = module.graph.output_node()
    x = module.graph.find_nodes(op="placeholder")[0]
    output.args = ((x, x),)
    surgery.prune(module)
    assert not any(isinstance(child, GraphModule) for child in module.children())
    assert dict(module.named_parameters()) == {}
