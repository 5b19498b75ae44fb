"""Running a network again: the same outputs, and nothing computed that did not change."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Interpreter, Node

from tests.workers.engine.networks import draw, recurrent_network, seeded, vector_network
from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.graph.rerun import Rerun


def _network() -> Network:
    seeded()
    return vector_network(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4)), 8)


def _double(network: Network, path: str) -> None:
    surgery.stored(network.module, path).data.mul_(2)


@pytest.mark.parametrize("remembered", [0, 1, 2])
def test_what_changed_takes_effect_and_what_was_changed_back_does_not(remembered: int) -> None:
    network = _network()
    batches = [draw(network, 5), draw(network, 3)]
    rerun = Rerun(network, remembered)
    with torch.no_grad():
        before = [rerun(x) for x in batches]
        for path in ("0.weight", "3.bias"):
            tensor = surgery.stored(network.module, path).clone()
            _double(network, path)
            rerun.changed([path])
            found = [rerun(x) for x in batches]
            assert all(torch.equal(mine, network(x)) for mine, x in zip(found, batches, strict=True))
            assert not torch.equal(found[0], before[0])
            surgery.stored(network.module, path).data.copy_(tensor)
        rerun.changed([])
        assert all(torch.equal(rerun(x), old) for x, old in zip(batches, before, strict=True))


def test_only_what_depends_on_a_changed_tensor_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network()
    rerun, x = Rerun(network, 1), draw(network, 5)
    rerun(x)
    computed: list[str] = []

    def run_node(self: Interpreter, n: Node) -> Any:
        computed.append(n.op)
        return original(self, n)

    original = Interpreter.run_node
    monkeypatch.setattr(Interpreter, "run_node", run_node)
    rerun.changed(["3.weight"])
    rerun(x)
    assert computed == ["get_attr", "call_function", "output"]


def test_calls_with_several_results_are_rerun_too() -> None:
    network = recurrent_network("lstm", num_layers=2)
    rerun, x = Rerun(network, 1), draw(network, 2, 5)
    with torch.no_grad():
        rerun(x)
        _double(network, "rnn.weight_hh_l1")
        rerun.changed(["rnn.weight_hh_l1"])
        for mine, wanted in zip(rerun(x), network(x), strict=True):
            torch.testing.assert_close(mine, wanted)
