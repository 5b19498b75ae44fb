"""A peer's knob is turned until it meets the budget, and what it imports may be missing."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from benchmarks.peers.worker import Task, meet_budget, pretend
from tests.workers.engine.networks import image_network
from workers.engine.formats import pt2


@pytest.fixture
def task(tmp_path: Path) -> Task:
    model = nn.Sequential(nn.Conv2d(3, 80, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5120, 4))
    pt2.write(image_network(model), tmp_path / "model.pt2")
    return Task("", 0.5, tmp_path / "model.pt2", tmp_path / "rows.npz", (3, 8, 8))


def narrowed(network: GraphModule, share: float) -> nn.Module:
    """A peer: as many channels as the knob says, of 80."""
    width = round(80 * share)
    if width == 0:
        raise ValueError("no channels")
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Flatten(), nn.Linear(64 * width, 4))


def width(module: nn.Module) -> int:
    """How many channels a narrowed network has."""
    convolution = module.get_submodule("0")
    assert isinstance(convolution, nn.Conv2d)
    return convolution.out_channels


def test_the_costliest_network_within_the_budget_is_found(task: Task) -> None:
    found = meet_budget(task, narrowed)
    [best] = [call for call in found.calls if call.kept == max(c.kept for c in found.calls if c.kept <= 0.5)]
    assert best.kept == 0.5
    assert width(found.module) == 40


def test_where_nothing_comes_below_the_budget_the_cheapest_is_kept(task: Task) -> None:
    found = meet_budget(task, lambda network, share: narrowed(network, 0.6 + 0.4 * share))
    assert min(call.kept for call in found.calls) > 0.5
    assert width(found.module) == 48


def test_a_knob_that_cannot_be_carried_out_is_turned_up(task: Task) -> None:
    def build(network: GraphModule, share: float) -> nn.Module:
        if share < 0.6:
            raise RuntimeError("rank 0")
        return narrowed(network, share - 0.2)

    assert width(meet_budget(task, build).module) == 40


def test_a_peer_that_always_fails_says_how(task: Task) -> None:
    def build(network: GraphModule, share: float) -> nn.Module:
        raise RuntimeError("rank 0")

    with pytest.raises(RuntimeError, match="rank 0"):
        meet_budget(task, build)


@pytest.mark.parametrize(("asked", "calls"), [(0.5, 1), (0.49, 1), (0.3, 2)])
def test_a_peer_that_meets_its_own_budget_is_not_searched(task: Task, asked: float, calls: int) -> None:
    assert len(meet_budget(task, narrowed, first=asked).calls) == calls


def test_a_peer_may_spoil_what_it_is_given(task: Task) -> None:
    def build(network: GraphModule, share: float) -> nn.Module:
        weight = network.get_parameter("0.weight")
        assert weight.abs().sum() > 0
        weight.data.zero_()
        return narrowed(network, share / 2)

    assert len(meet_budget(task, build).calls) > 1


def test_the_head_and_the_first_convolution_are_left_alone(task: Task) -> None:
    assert task.head() == "3"
    assert task.left_alone() == ["3", "0"]
    assert torch.equal(task.example(), task.example())


def test_packages_that_are_missing_can_be_imported_for_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    pretend("nowhere_to_be_found")
    module = importlib.import_module("nowhere_to_be_found.deep.inside")
    assert isinstance(module.Thing.Part, type)
    monkeypatch.delitem(sys.modules, "nowhere_to_be_found.deep.inside")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("nowhere_else_either")
