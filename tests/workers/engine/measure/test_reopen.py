"""Artifacts opened with stock libraries and compared."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.measure.onnx_files import matmul
from workers.engine.errors import EngineError
from workers.engine.graph.network import Dimension, Input, export
from workers.engine.measure.reopen import Format, agree


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"sum": self.linear(a + b), "difference": a - b}


@pytest.fixture(scope="module")
def pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pt2")
    module = TwoOutputs().eval()
    batch = Dimension("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(module, [Input(name, torch.float32, (batch, 3)) for name in "ab"])
    torch.export.save(program, folder / "model.pt2")
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    outputs = module(a, b)
    np.savez(folder / "inputs.npz", a=a.numpy(), b=b.numpy())
    np.savez(folder / "expected.npz", **{name: value.detach().numpy() for name, value in outputs.items()})
    return folder


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    matmul(tmp_path / "model.onnx", weight)
    x = np.ones((4, 3), np.float32)
    np.savez(tmp_path / "inputs.npz", x=x)
    np.savez(tmp_path / "expected.npz", y=x @ weight)
    return tmp_path


def test_a_pt2_with_several_inputs_and_outputs_agrees(pt2: Path) -> None:
    agreement = agree(pt2 / "model.pt2", "pt2", pt2 / "inputs.npz", pt2 / "expected.npz")
    assert agreement.max_relative_difference <= 1e-6
    assert agreement.n == 5


def test_an_onnx_agrees(onnx: Path) -> None:
    agreement = agree(onnx / "model.onnx", "onnx", onnx / "inputs.npz", onnx / "expected.npz")
    assert agreement.max_relative_difference <= 1e-6
    assert agreement.n == 4


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [(lambda y: y + 0.01 * np.abs(y).max(), None), (lambda y: y * np.nan, None), (lambda y: y[:, :1], 1e9)],
)
def test_other_values_or_shapes_are_a_disagreement(
    onnx: Path, change: object, tolerance: float | None
) -> None:
    assert callable(change)
    np.savez(onnx / "other.npz", y=change(np.load(onnx / "expected.npz")["y"]))
    with pytest.raises(EngineError) as caught:
        agree(onnx / "model.onnx", "onnx", onnx / "inputs.npz", onnx / "other.npz", tolerance)
    assert caught.value.code == "artifact_disagrees"


def test_one_output_that_is_no_number_is_a_disagreement_whatever_the_others_are(pt2: Path) -> None:
    expected = dict(np.load(pt2 / "expected.npz"))
    np.savez(pt2 / "other.npz", **(expected | {"difference": expected["difference"] * np.nan}))
    with pytest.raises(EngineError) as caught:
        agree(pt2 / "model.pt2", "pt2", pt2 / "inputs.npz", pt2 / "other.npz")
    assert caught.value.code == "artifact_disagrees"


def test_a_looser_tolerance_accepts_what_the_default_refuses(onnx: Path) -> None:
    y = np.load(onnx / "expected.npz")["y"]
    np.savez(onnx / "other.npz", y=y * 1.01)
    agreement = agree(onnx / "model.onnx", "onnx", onnx / "inputs.npz", onnx / "other.npz", 0.02)
    assert agreement.max_relative_difference == pytest.approx(0.01 / 1.01, rel=1e-3)


def test_an_int8_form_may_be_a_step_off_and_no_more(onnx: Path) -> None:
    y = np.load(onnx / "expected.npz")["y"]
    for factor in (1.01, 1.1):
        np.savez(onnx / f"{factor}.npz", y=y * factor)
    assert agree(onnx / "model.onnx", "int8", onnx / "inputs.npz", onnx / "1.01.npz").n == 4
    with pytest.raises(EngineError) as caught:
        agree(onnx / "model.onnx", "int8", onnx / "inputs.npz", onnx / "1.1.npz")
    assert (caught.value.code, caught.value.field) == ("artifact_disagrees", "quantize")


@pytest.mark.parametrize("file_format", ["pt2", "onnx", "int8"])
def test_what_does_not_open_is_unreadable_and_names_no_path(onnx: Path, file_format: Format) -> None:
    (onnx / "broken").write_bytes(b"PK\x03\x04 but no more")
    with pytest.raises(EngineError) as caught:
        agree(onnx / "broken", file_format, onnx / "inputs.npz", onnx / "expected.npz")
    assert caught.value.code == "artifact_unreadable"
    assert caught.value.field == ("quantize" if file_format == "int8" else "outputs")
    assert str(onnx) not in caught.value.detail


class Nested(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor], *, mode: str, extra: None) -> dict[str, Any]:
        return {"difference": (pair[0] - pair[1].exp(), extra)}


def test_a_pt2_is_called_as_its_user_calls_it(tmp_path: Path) -> None:
    a, b = torch.randn(5, 3), torch.randn(5, 3)
    program = torch.export.export(Nested(), ((a, b),), {"mode": "sum", "extra": None})
    torch.export.save(program, tmp_path / "model.pt2")
    np.savez(tmp_path / "inputs.npz", a=a.numpy(), b=b.numpy())
    np.savez(tmp_path / "expected.npz", output=(a - b.exp()).numpy())
    found = agree(tmp_path / "model.pt2", "pt2", tmp_path / "inputs.npz", tmp_path / "expected.npz")
    assert found.max_relative_difference == 0.0
