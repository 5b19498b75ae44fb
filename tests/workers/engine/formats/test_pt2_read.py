"""Reading `.pt2`: what stock torch would compute, without stock torch's loader."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from tests.workers.engine.formats.zoo import ZOO, Case
from workers.engine.formats import pt2
from workers.engine.graph.network import Dimension, call_nodes


def same(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def sizes(case: Case) -> list[tuple[int, int]]:
    if not any(case.variable):
        return [(3, 5)]
    return [(1, 5), (3, 5), (8, 5)] + [(2, 3), (5, 9)] * any(len(axes) > 1 for axes in case.variable)


@pytest.fixture(autouse=True)
def no_stock_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the stock loader was called on an upload")

    monkeypatch.setattr(torch.export, "load", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)


@pytest.mark.parametrize("name", ZOO)
def test_the_network_computes_what_was_exported_at_every_size(name: str, tmp_path: Path) -> None:
    case = ZOO[name]
    program = case.save(tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    original = program.module()
    for batch, length in sizes(case):
        inputs = case.draw(batch, length)
        expected = original(*(tensor.clone() for tensor in inputs))
        assert same(network(*inputs), expected), (batch, length)


def test_parameters_keep_their_paths_and_values(tmp_path: Path) -> None:
    program = ZOO["residual"].save(tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    assert list(dict(network.module.named_parameters())) == list(dict(program.named_parameters()))
    assert torch.equal(network.module.get_parameter("stem.0.weight"), program.state_dict["stem.0.weight"])
    assert torch.equal(
        network.module.get_buffer("stem.1.running_var"), program.state_dict["stem.1.running_var"]
    )


def test_tied_weights_are_one_parameter(tmp_path: Path) -> None:
    ZOO["tied"].save(tmp_path / "model.pt2")
    module = pt2.read(tmp_path / "model.pt2").module
    assert module.get_parameter("embedding.weight") is module.get_parameter("head.weight")


def test_inputs_keep_names_dtypes_and_variable_axes(tmp_path: Path) -> None:
    ZOO["attention"].save(tmp_path / "model.pt2")
    x, mask = pt2.read(tmp_path / "model.pt2").inputs
    batch, length = mask.shape
    assert (x.name, x.dtype, mask.name, mask.dtype) == ("x", torch.float32, "mask", torch.int64)
    assert x.shape == (batch, length, 16)
    assert isinstance(batch, Dimension)
    assert isinstance(length, Dimension)
    assert (batch.minimum, batch.maximum, length.minimum, length.maximum) == (1, 64, 2, 12)
    assert batch.symbol != length.symbol


def test_an_input_named_like_a_builtin_keeps_its_name(tmp_path: Path) -> None:
    ZOO["several"].save(tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    assert [spec.name for spec in network.inputs] == ["input", "context"]
    placeholders = [node.target for node in network.module.graph.nodes if node.op == "placeholder"]
    assert placeholders == ["input", "context"]


def test_layers_stay_whole_nodes(tmp_path: Path) -> None:
    ZOO["lstm"].save(tmp_path / "model.pt2")
    targets = {node.target for node in call_nodes(pt2.read(tmp_path / "model.pt2").module)}
    assert {
        torch.ops.aten.embedding.default,
        torch.ops.aten.lstm.input,
        torch.ops.aten.linear.default,
    } <= targets
