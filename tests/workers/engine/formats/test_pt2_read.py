"""Reading `.pt2`: what stock torch would compute, without stock torch's loader."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from tests.workers.engine.formats.zoo import BATCH, ZOO, Case
from tests.workers.engine.hostile import rejection
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
    assert (batch.example, length.example) == (3, 5)


def test_an_axis_of_multiples_stays_one(tmp_path: Path) -> None:
    ZOO["pyramid"].save(tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    pt2.write(network, tmp_path / "again.pt2")
    for found in (network, pt2.read(tmp_path / "again.pt2")):
        varying = [axis for axis in found.inputs[0].shape if isinstance(axis, Dimension)]
        bounds = [(axis.multiple, axis.minimum, axis.maximum) for axis in varying]
        assert bounds == [(1, 1, 64), (4, 8, 48), (4, 8, None)]


class TwoSizes(nn.Module):
    def forward(self, large: Tensor, small: Tensor) -> Tensor:
        return large.view(-1, 2).sum(1) + small


def test_an_axis_that_is_a_multiple_of_another_is_refused(tmp_path: Path) -> None:
    length = Dim("length", min=2)
    inputs, shapes = (torch.randn(8), torch.randn(4)), ({0: 2 * length}, {0: length})
    torch.export.save(torch.export.export(TwoSizes(), inputs, dynamic_shapes=shapes), tmp_path / "model.pt2")
    assert rejection(pt2.read, tmp_path / "model.pt2").code == "unsupported_dimension"


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


class Regularised(nn.Module):
    """Everything that differs between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.rnn = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.conv(x).transpose(1, 2))
        mixed: Tensor = F.scaled_dot_product_attention(y, y, y, dropout_p=0.5 if self.training else 0.0)
        return mixed


def test_a_model_exported_in_training_mode_is_read_in_evaluation_mode(tmp_path: Path) -> None:
    case = Case(Regularised, lambda batch, _: (torch.randn(batch, 2, 6),), ({0: BATCH},))
    torch.export.save(case.program(train=True), tmp_path / "train.pt2")
    network = pt2.read(tmp_path / "train.pt2")
    (x,) = case.draw(4, 0)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    assert torch.allclose(network(x), case.program().module()(x), atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_the_callers_tensors_are_not_written_into(tmp_path: Path) -> None:
    ZOO["in_place"].save(tmp_path / "model.pt2")
    x = -torch.ones(3, 4)
    assert not pt2.read(tmp_path / "model.pt2")(x).any()
    assert torch.equal(x, -torch.ones(3, 4))


class Optional(nn.Module):
    def forward(self, x: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> dict[str, Tensor | None]:
        return {"scaled": x * scale if bias is None else x + bias, "nothing": None}


def test_arguments_fixed_at_export_and_empty_outputs_are_left_out(tmp_path: Path) -> None:
    program = torch.export.export(Optional(), (torch.ones(2), None, 2.5))
    torch.export.save(program, tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    assert [spec.name for spec in network.inputs] == ["x"]
    assert torch.equal(network(torch.ones(2)), torch.full((2,), 2.5))


class Shared(nn.Module):
    """A buffer that is a view of a parameter's storage, and one that is expanded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("head", self.weight.detach()[:2])
        self.register_buffer("mask", torch.ones(1).expand(1000))
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        head: Tensor = self.head  # type: ignore[assignment]
        return F.linear(x, self.weight).sum() + F.linear(x, head).sum() + self.frozen.sum()


def test_views_of_one_storage_stay_views(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Shared().eval(), (torch.ones(2, 3),)), tmp_path / "model.pt2")
    module = pt2.read(tmp_path / "model.pt2").module
    head, weight = module.get_buffer("head"), module.get_parameter("weight")
    assert head.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert module.get_buffer("mask").stride() == (0,)
    assert module.get_buffer("nothing").shape == (0, 3)
    assert not module.get_parameter("frozen").requires_grad
