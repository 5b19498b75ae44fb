"""Every kind of layer through the API: each of its methods is asked for, taken, reported and in the files."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from app.client.client import Client
from app.contract.report import Report
from app.contract.spec import JobSpec
from app.contract.status import JobStatus
from tests.acceptance.conftest import Service, serving
from tests.workers.engine.networks import Attention, ConstantProduct, HuggingFaceLinear, TiedTokens

WIDTH, CHANNELS, WORDS, LENGTH, RANK = 64, 8, 64, 6, 2
RECURRENT = ["svd", "tucker", "cp", "input_svd"]
CONVOLUTIONS = ["svd", "tucker", "channel_svd", "channel_svd_in"]
IN_ONE_GROUP = [*CONVOLUTIONS, "cp", "full_tucker"]


class SideBySide(nn.Module):
    """A layer for each method, all on the same input."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        results = [layer(x) for layer in self.layers.values()]
        return torch.cat([(r[0] if isinstance(r, tuple) else r).flatten(1) for r in results], 1)


def each(methods: list[str], make: Callable[[str], nn.Module]) -> dict[str, nn.Module]:
    return {method: make(method) for method in [*methods, "keep"]}


def convolutions(make: Any, methods: list[str]) -> dict[str, nn.Module]:
    def layer(method: str) -> nn.Module:
        module: nn.Module = make(CHANNELS, CHANNELS, *((1,) if method == "svd" else (3, 1, 1)))
        return module

    return each(methods, layer)


def recurrent(make: Any) -> dict[str, nn.Module]:
    return each(RECURRENT, lambda _: make(16, 16, num_layers=2, batch_first=True))


def embeddings() -> dict[str, nn.Module]:
    found = each(["svd", "tensor_train"], lambda _: nn.Embedding(WORDS, 16))
    return {**found, "tied": TiedTokens(WORDS, 16)}


# Of each kind the layers by method, the shape of an example, and what a rule calls a layer.
KINDS: dict[str, tuple[Callable[[], dict[str, nn.Module]], tuple[int, ...], str]] = {
    "linear": (lambda: each(["svd", "tensor_train"], lambda _: nn.Linear(WIDTH, WIDTH)), (WIDTH,), "{}"),
    "addmm": (
        lambda: each(["svd", "tensor_train"], lambda _: HuggingFaceLinear(WIDTH, WIDTH)),
        (WIDTH,),
        "{}",
    ),
    "matmul": (
        lambda: each(["svd", "tensor_train"], lambda _: ConstantProduct(WIDTH, WIDTH)),
        (LENGTH, WIDTH),
        "{}",
    ),
    "embedding": (embeddings, (LENGTH,), "{}*"),
    "conv1d": (lambda: convolutions(nn.Conv1d, IN_ONE_GROUP), (CHANNELS, 9), "{}"),
    "conv2d": (lambda: convolutions(nn.Conv2d, [*IN_ONE_GROUP, "spatial_svd"]), (CHANNELS, 9, 9), "{}"),
    "conv3d": (lambda: convolutions(nn.Conv3d, IN_ONE_GROUP), (CHANNELS, 5, 5, 5), "{}"),
    "conv_transpose1d": (lambda: convolutions(nn.ConvTranspose1d, CONVOLUTIONS), (CHANNELS, 9), "{}"),
    "conv_transpose2d": (
        lambda: convolutions(nn.ConvTranspose2d, [*CONVOLUTIONS, "spatial_svd"]),
        (CHANNELS, 9, 9),
        "{}",
    ),
    "conv_transpose3d": (lambda: convolutions(nn.ConvTranspose3d, CONVOLUTIONS), (CHANNELS, 5, 5, 5), "{}"),
    "lstm": (lambda: recurrent(nn.LSTM), (LENGTH, 16), "{}.weight_hh_l0"),
    "gru": (lambda: recurrent(nn.GRU), (LENGTH, 16), "{}.weight_hh_l0"),
    "rnn": (lambda: recurrent(nn.RNN), (LENGTH, 16), "{}.weight_hh_l0"),
    "attention": (lambda: each(["joint_svd"], lambda _: Attention(24, 3)), (LENGTH, 24), "{}.*"),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all kinds."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_of_a_kind_is_taken_where_a_rule_asks_for_it(
    kind: str, service: Service, tmp_path: Path
) -> None:
    make, shape, name = KINDS[kind]
    torch.manual_seed(0)
    layers = make()
    x = torch.randint(WORDS, (3, *shape)) if kind == "embedding" else torch.randn(3, *shape)
    write(SideBySide(layers).eval(), x, tmp_path / "model.pt2")
    methods = {part: "svd" if part == "tied" else part for part in layers}
    assert set(methods.values()) == named(service, kind)
    rules = [rule(f"layers.{name.format(part)}", method) for part, method in methods.items()]
    with service.client() as client:
        report, files = compressed(client, tmp_path, rules)
    [candidate] = report.candidates
    assert candidate.parameters < 0.8 * report.original.parameters
    for asked in rules:
        found = [layer for layer in candidate.layers if fnmatchcase(layer.name, asked["match"])]
        assert {layer.method for layer in found} == {asked["method"]}
        if asked["method"] != "keep":
            assert all(layer.rank and set(layer.rank) == {RANK} for layer in found)
    check(files, x, candidate.parameters)


def write(module: nn.Module, x: Tensor, path: Path) -> None:
    """As a user of torch does it."""
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=({0: batch},)), path)


def named(service: Service, kind: str) -> set[str]:
    """The methods of a kind as the API lists them."""
    headers = {"Authorization": f"Bearer {service.key}"}
    methods = httpx.get(f"{service.url}/v1/methods", headers=headers).raise_for_status().json()["methods"]
    return {method["name"] for method in methods if kind in method["layers"]}


def rule(match: str, method: str) -> dict[str, Any]:
    return {"match": match, "method": method, **({} if method == "keep" else {"rank": RANK})}


def compressed(client: Client, folder: Path, rules: list[dict[str, Any]]) -> tuple[Report, dict[str, Path]]:
    """What a job makes of the model in a folder: its report, and the artifacts by format."""
    model = client.inspected("models", client.upload("models", folder / "model.pt2").id)
    spec = {"model": model.id, "ranks": {"selection": "explicit"}, "layers": rules, "device": "cpu"}
    job = client.submit(JobSpec.model_validate(spec))
    *_, last = client.follow(job.id)
    assert last.status is JobStatus.SUCCEEDED, last.problem
    artifacts = client.artifacts(job.id)
    files = {each.format: client.download(each, folder / "out") for each in artifacts}
    return client.report(job.id), files


def check(files: dict[str, Path], x: Tensor, parameters: int) -> None:
    """That stock torch and stock ONNX Runtime compute the same from as many parameters as were reported."""
    module = torch.export.load(files["pt2"]).module()
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    weights = [w for w in onnx.load(files["onnx"]).graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    # The exporter adds biases up, multiplies small cores out, and stores a small transpose of what is tied.
    assert sum(int(np.prod(w.dims)) for w in weights) == pytest.approx(parameters, rel=0.15)
    session = onnxruntime.InferenceSession(files["onnx"])
    [found] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(x), rtol=1e-4, atol=1e-4)
