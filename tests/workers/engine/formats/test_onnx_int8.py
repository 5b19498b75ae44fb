"""int8 forms: ONNX Runtime opens them, they are near to the float ones, and tell nothing of this machine."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.workers.engine.networks import (
    Attention,
    Convolutional,
    TiedTokens,
    draw_all,
    image_network,
    recurrent_network,
    sequence_network,
    token_network,
    vector_network,
)
from workers.engine.errors import EngineError
from workers.engine.formats import onnx as onnx_format
from workers.engine.formats import onnx_int8
from workers.engine.graph.network import Network
from workers.engine.measure import onnx_network

NETWORKS = {
    "linear": vector_network(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), 64),
    "convolutions": image_network(Convolutional(width=32)),
    "lstm": recurrent_network("lstm", width=16, hidden=32),
    "large lstm": recurrent_network("lstm", width=64, hidden=96),
    "attention": sequence_network(Attention(24, 3), 24),
    "tied": token_network(TiedTokens(40, 16)),
}


def quantized(network: Network, folder: Path) -> Path:
    onnx_format.write(network, folder / "model.onnx")
    onnx_int8.write(folder / "model.onnx", folder / "int8.onnx")
    return folder / "int8.onnx"


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_smaller_and_computes_nearly_the_same_at_every_batch(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    path = quantized(network, tmp_path)
    assert path.stat().st_size < (0.3 if "large" in name else 0.7) * (tmp_path / "model.onnx").stat().st_size
    call = onnx_network.load(path, 1)
    for batch in (1, 5):
        inputs = draw_all(network, batch)
        for output, truth in zip(call(*inputs), tree_leaves(network(*inputs)), strict=True):
            assert 0 < (output - truth).norm() / truth.norm() < 0.05
    floats = onnx_network.load(tmp_path / "model.onnx", 1)(*inputs)
    assert torch.allclose(floats[0], tree_leaves(network(*inputs))[0], atol=1e-5)


def test_convolutions_have_unsigned_weights_and_others_signed_ones(tmp_path: Path) -> None:
    types = {}
    for name in ("convolutions", "linear"):
        (tmp_path / name).mkdir()
        model = onnx.load(quantized(NETWORKS[name], tmp_path / name))
        types[name] = {w.data_type for w in model.graph.initializer if w.name.endswith("_quantized")}
    assert types == {"convolutions": {onnx.TensorProto.UINT8}, "linear": {onnx.TensorProto.INT8}}


def test_the_file_has_no_metadata_and_the_float_one_stays_as_it_was(tmp_path: Path) -> None:
    onnx_format.write(NETWORKS["linear"], tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    onnx_int8.write(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == before
    assert not onnx.load(tmp_path / "int8.onnx").metadata_props
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "int8.onnx"}


@pytest.mark.parametrize(
    ("module", "shape"), [(nn.GRU(4, 6, batch_first=True), (5, 4)), (nn.ConvTranspose1d(4, 6, 3), (4, 9))]
)
def test_what_onnx_runtime_leaves_as_it_is_has_no_int8_form(
    module: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as caught:
        quantized(vector_network(module, *shape), tmp_path)
    assert (caught.value.code, bool(caught.value.hint)) == ("not_quantizable", True)
    assert not (tmp_path / "int8.onnx").exists()


def test_what_onnx_runtime_refuses_has_no_int8_form(tmp_path: Path) -> None:
    onnx_format.write(NETWORKS["linear"], tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.initializer[0].data_type = onnx.TensorProto.STRING
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EngineError) as caught:
        onnx_int8.write(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert caught.value.code == "not_quantizable"
