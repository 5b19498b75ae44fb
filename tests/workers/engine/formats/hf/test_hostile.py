"""Folders whose configuration and weights do not belong together, or that want more than reading."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tests.workers.engine.hf_folders import SMALL, entries_of, forged, model_of
from tests.workers.engine.hostile import Entries, rejection
from workers.engine.errors import Rejected
from workers.engine.formats.hf import reader


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    """The files of a small BERT."""
    return entries_of(model_of("BertForMaskedLM", SMALL["bert"]), tmp_path_factory.mktemp("saved") / "model")


def config_of(saved: Entries, **changes: Any) -> dict[str, Any]:
    return {**json.loads(saved["config.json"]), **changes}


def weights_of(saved: Entries) -> dict[str, Tensor]:
    return load(saved["model.safetensors"])


def refusal(folder: Path, config: object, weights: dict[str, Tensor]) -> Rejected:
    path = forged(folder, config, {"model.safetensors": save(weights)})
    began = time.perf_counter()
    rejected = rejection(reader.read, path)
    assert time.perf_counter() - began < 2.0
    return rejected


def test_missing_weights_are_refused_by_name(saved: Entries, tmp_path: Path) -> None:
    weights = weights_of(saved)
    del weights["bert.encoder.layer.1.output.dense.weight"]
    rejected = refusal(tmp_path, config_of(saved), weights)
    assert rejected.code == "missing_weights"
    assert "bert.encoder.layer.1.output.dense.weight" in rejected.detail


def test_weights_of_no_layer_are_refused_by_name(saved: Entries, tmp_path: Path) -> None:
    weights = weights_of(saved) | {"bert.encoder.layer.7.output.dense.weight": torch.ones(16, 32)}
    rejected = refusal(tmp_path, config_of(saved), weights)
    assert (rejected.code, rejected.layer) == ("unexpected_weights", "bert.encoder.layer.7.output.dense")


@pytest.mark.parametrize("shape", [(32, 16), (16, 31), (16,), (16, 32, 1), (0, 32)])
def test_weights_of_other_shapes_are_refused_by_name(
    shape: tuple[int, ...], saved: Entries, tmp_path: Path
) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    rejected = refusal(tmp_path, config_of(saved), weights_of(saved) | {name: torch.ones(shape)})
    assert (rejected.code, rejected.layer) == ("shapes_differ", name.removesuffix(".weight"))


def test_integer_weights_are_refused(saved: Entries, tmp_path: Path) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    weights = weights_of(saved) | {name: torch.ones(16, 32, dtype=torch.int8)}
    assert refusal(tmp_path, config_of(saved), weights).code == "integer_weights"


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 1 << 16, "intermediate_size": 1 << 16, "num_hidden_layers": 256},
        {"vocab_size": 1 << 20, "hidden_size": 1 << 14},
        {"max_position_embeddings": 1 << 20, "hidden_size": 1 << 14},
    ],
)
def test_a_network_larger_than_its_weights_is_refused_before_it_is_made(
    changes: dict[str, Any], saved: Entries, tmp_path: Path
) -> None:
    rejected = refusal(tmp_path, config_of(saved, **changes), weights_of(saved))
    assert (rejected.code, rejected.field) == ("missing_weights", "config.json")


def test_heads_that_do_not_divide_the_width_are_refused(saved: Entries, tmp_path: Path) -> None:
    assert refusal(tmp_path, config_of(saved, num_attention_heads=3), weights_of(saved)).code == "cannot_load"


def test_what_the_configuration_says_of_code_and_kernels_is_not_heard(
    saved: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is opened and no socket made while the model is loaded, whatever the configuration names."""
    hostile = {
        "_attn_implementation": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "_name_or_path": "evil/model",
        "transformers_weights": "../evil.safetensors",
        "dtype": "load",
        "custom_generate": "evil.py",
        "fusion_config": {"patch_embeddings": True},
    }
    path = forged(tmp_path, config_of(saved, **hostile), {"model.safetensors": saved["model.safetensors"]})
    touched: list[tuple[str, Any]] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
            touched.append((event, arguments))
        if watching and event == "open" and "evil" in str(arguments[0]):
            touched.append((event, arguments))

    sys.addaudithook(watch)
    try:
        network = reader.read(path).network
    finally:
        watching = False
    assert not touched
    assert len(network.inputs) == 3
