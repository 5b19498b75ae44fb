"""Folders of timm's as networks. The package needs torchvision: where it is not there, another stands in for
it, which knows one architecture."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from tests.workers.engine.hostile import pack
from workers.engine.errors import Rejected
from workers.engine.formats.hf import reader

_STAND_IN = """
from torch import nn

__version__ = "stand-in"


def list_models():
    return ["tiny_net"]


def create_model(name, pretrained, num_classes=10, in_chans=3, global_pool="avg"):
    assert name == "tiny_net" and pretrained is False
    pool = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}[global_pool](1)
    stem = [nn.Conv2d(in_chans, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*stem, pool, nn.Flatten(), nn.Linear(8, num_classes))
"""
_CONFIG = {
    "architecture": "tiny_net",
    "num_classes": 4,
    "global_pool": "max",
    "pretrained_cfg": {"input_size": [1, 12, 12]},
    "model_args": {"in_chans": 1},
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that stands in for timm."""
    (tmp_path / "packages" / "timm").mkdir(parents=True)
    (tmp_path / "packages" / "timm" / "__init__.py").write_text(_STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    before = sys.modules.pop("timm", None)
    yield import_module("timm")
    del sys.modules["timm"]
    if before is not None:
        sys.modules["timm"] = before


def folder(path: Path, config: object, state: dict[str, torch.Tensor]) -> Path:
    return pack(
        path / "model.zip", {"config.json": json.dumps(config).encode(), "model.safetensors": save(state)}
    )


def model_of(timm: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("tiny_net", False, num_classes=4, in_chans=1, global_pool="max")
    return model.eval()


def test_a_folder_computes_what_the_library_computes(stand_in: Any, tmp_path: Path) -> None:
    model = model_of(stand_in)
    imported = reader.read(folder(tmp_path, _CONFIG, model.state_dict()))
    x = torch.randn(3, 1, 12, 12)
    with torch.no_grad():
        assert torch.equal(imported.network(x), model(x))
    assert [spec.name for spec in imported.network.inputs] == ["x"]
    assert imported.architecture is None, "it is no folder of transformers', and none can be written of it"


def test_half_precision_is_widened_and_said(stand_in: Any, tmp_path: Path) -> None:
    state = {
        name: each.half() if each.is_floating_point() else each
        for name, each in model_of(stand_in).state_dict().items()
    }
    imported = reader.read(folder(tmp_path, _CONFIG, state))
    assert [remark.code for remark in imported.remarks] == ["single_precision"]
    assert imported.network.module.get_parameter("5.weight").dtype is torch.float32


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda state: state.pop("0.bias"), "missing_weights"),
        (lambda state: state.update(score=torch.ones(1)), "unexpected_weights"),
        (lambda state: state.update({"5.weight": torch.ones(5, 8)}), "shapes_differ"),
        (lambda state: state.update({"5.weight": torch.ones(4, 8, dtype=torch.int8)}), "integer_weights"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Any, code: str, stand_in: Any, tmp_path: Path) -> None:
    state = dict(model_of(stand_in).state_dict())
    change(state)
    with pytest.raises(Rejected) as caught:
        reader.read(folder(tmp_path, _CONFIG, state))
    assert caught.value.code == code


def test_an_architecture_that_is_not_listed_is_named(stand_in: Any, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        reader.read(
            folder(tmp_path, {**_CONFIG, "architecture": "other_net"}, model_of(stand_in).state_dict())
        )
    assert caught.value.code == "unknown_architecture"
    assert "other_net" in caught.value.detail


def test_arguments_that_the_model_does_not_take_end_in_a_refusal(stand_in: Any, tmp_path: Path) -> None:
    config = {**_CONFIG, "model_args": {"in_chans": 1, "img_size": 12}}
    with pytest.raises(Rejected) as caught:
        reader.read(folder(tmp_path, config, model_of(stand_in).state_dict()))
    assert caught.value.code == "cannot_load"


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is there")
def test_without_the_package_the_way_out_is_told(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        reader.read(folder(tmp_path, _CONFIG, {"a": torch.ones(1)}))
    assert caught.value.code == "timm_missing"
    assert "rankfold[timm]" in str(caught.value.hint)


@pytest.mark.skipif(find_spec("timm") is None, reason="needs rankfold[timm]")
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "regnety_002"])
def test_timm_itself(name: str, tmp_path: Path) -> None:
    import timm  # noqa: PLC0415
    from timm.models import save_for_hf  # noqa: PLC0415

    model = timm.create_model(name, pretrained=False, num_classes=5).eval()
    save_for_hf(model, tmp_path / "saved", safe_serialization=True)
    path = pack(tmp_path / "m.zip", {each.name: each.read_bytes() for each in (tmp_path / "saved").iterdir()})
    network = reader.read(path).network
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(network(x), model(x), atol=1e-5)
