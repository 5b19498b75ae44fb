"""ONNX files: ONNX Runtime computes what torch does, and the file tells nothing about this machine."""

import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from onnx import load
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tests.workers.engine.formats.zoo import ZOO
from tests.workers.engine.networks import draw_all, recurrent_network
from workers.engine.errors import EngineError
from workers.engine.formats import onnx, pt2
from workers.engine.graph.network import Dimension, Input, Network, trace


def network_of(name: str, folder: Path) -> Network:
    ZOO[name].save(folder / "model.pt2")
    return pt2.read(folder / "model.pt2")


def error(session: onnxruntime.InferenceSession, network: Network, inputs: tuple[Tensor, ...]) -> float:
    feed = {spec.name: value.numpy() for spec, value in zip(network.inputs, inputs, strict=True)}
    pairs = zip(session.run(None, feed), tree_leaves(network(*inputs)), strict=True)
    return max(float((torch.from_numpy(found) - expected.detach()).abs().max()) for found, expected in pairs)


@pytest.mark.parametrize("name", ["residual", "lstm", "scan", "attention", "several"])
def test_onnx_runtime_agrees_with_torch_at_every_size(name: str, tmp_path: Path) -> None:
    network = network_of(name, tmp_path)
    onnx.write(network, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [node.name for node in session.get_inputs()] == [spec.name for spec in network.inputs]
    assert all(isinstance(node.shape[0], str) for node in session.get_inputs())
    for batch, length in [(3, 5), (1, 5), (8, 5)] + [(2, 9)] * (name in ("attention", "scan")):
        assert error(session, network, ZOO[name].draw(batch, length)) < 1e-5


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {"bidirectional": True, "batch_first": False}),
        ("gru", {"given": True}),
        ("tanh", {"num_layers": 2, "bias": False}),
        ("relu", {"bidirectional": True, "batch_first": False, "given": True}),
    ],
)
def test_recurrent_calls_keep_their_length_variable(
    cell: str, options: dict[str, bool], tmp_path: Path
) -> None:
    network = recurrent_network(cell, **options)
    onnx.write(network, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert {"RNN", "LSTM", "GRU"} & {node.op_type for node in load(tmp_path / "model.onnx").graph.node}
    for batch, length in ((1, 1), (3, 6), (2, 9)):
        assert error(session, network, tuple(draw_all(network, batch, length))) < 1e-5


def test_outputs_are_named_alike_whatever_the_graph(tmp_path: Path) -> None:
    onnx.write(network_of("several", tmp_path), tmp_path / "several.onnx")
    names = [node.name for node in load(tmp_path / "several.onnx").graph.output]
    assert names == [f"output_{place}" for place in range(6)]


class Clash(nn.Module):
    def forward(self, output: Tensor) -> Tensor:
        return output * 2


def test_an_input_called_output_keeps_its_name(tmp_path: Path) -> None:
    network = trace(Clash().eval(), [Input("output", torch.float32, (Dimension("batch"), 2))])
    onnx.write(network, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [node.name for node in session.get_inputs()] == ["output"]
    assert [node.name for node in session.get_outputs()] == ["network_output"]
    assert error(session, network, (torch.ones(3, 2),)) == 0


def test_one_quiet_file_without_paths_or_descriptions(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network = network_of("residual", tmp_path)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    capfd.readouterr()
    onnx.write(network, tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""
    assert {file.name for file in tmp_path.iterdir()} == {"model.pt2", "model.onnx"}
    data = (tmp_path / "model.onnx").read_bytes()
    forbidden = [str(Path(onnx.__file__).parents[3]), str(Path(torch.__file__).parents[1]), str(tmp_path)]
    forbidden += [sys.prefix, ".py", "stack_trace", "metadata", "aten"]
    assert [text for text in forbidden if text.encode() in data] == []
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cummax(x, 1).values


def test_an_operator_without_conversion_is_named(tmp_path: Path) -> None:
    network = trace(Unsupported().eval(), [Input("x", torch.float32, (Dimension("batch"), 4))])
    with pytest.raises(EngineError) as caught:
        onnx.write(network, tmp_path / "model.onnx")
    assert caught.value.code == "onnx_unsupported"
    assert "aten.cummax" in caught.value.detail
    assert caught.value.hint
    assert not (tmp_path / "model.onnx").exists()


def test_a_network_beyond_what_onnx_holds_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "MAX_BYTES", 1000)
    with pytest.raises(EngineError) as caught:
        onnx.write(network_of("fixed_mlp", tmp_path), tmp_path / "model.onnx")
    assert caught.value.code == "onnx_too_large"
