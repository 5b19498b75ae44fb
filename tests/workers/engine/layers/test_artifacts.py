"""Every form for tokens, as files: stock torch and ONNX Runtime compute what the engine does."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from tests.workers.engine.networks import (
    Attention,
    ConstantProduct,
    TiedTokens,
    draw,
    seeded,
    sequence_network,
    token_network,
)
from workers.engine.formats import onnx, pt2
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.find import find

FORMS: dict[str, tuple[Callable[[], Network], str]] = {
    "embedding: svd": (lambda: token_network(nn.Embedding(11, 6)), "svd"),
    "embedding: tensor train": (lambda: token_network(nn.Embedding(11, 6)), "tensor_train"),
    "tied embedding: svd": (lambda: token_network(TiedTokens(11, 6)), "svd"),
    "linear: tensor train": (lambda: sequence_network(nn.Linear(12, 18), 12), "tensor_train"),
    "matmul: svd": (lambda: sequence_network(ConstantProduct(12, 18), 12), "svd"),
    "attention: joint svd": (lambda: sequence_network(Attention(12, 2), 12), "joint_svd"),
}


@pytest.mark.parametrize(("make", "method"), FORMS.values(), ids=FORMS)
def test_stock_torch_and_onnx_runtime_agree_at_every_batch_and_length(
    make: Callable[[], Network], method: str, tmp_path: Path
) -> None:
    seeded()
    network = make()
    for layer in find(network, joint=True):
        factorization = layer.methods[method]
        factorization.rewrite(tuple(max(1, most // 2) for most in factorization.max_rank))
    surgery.prune(network.module)
    network = trace(network.module, network.inputs)
    pt2.write(network, tmp_path / "model.pt2")
    onnx.write(network, tmp_path / "model.onnx")
    stock = torch.export.load(tmp_path / "model.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch, length in ((1, 1), (3, 7)):
        x = draw(network, batch, length)
        expected = network(x).detach()
        assert torch.equal(stock(x), expected)
        [found] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
