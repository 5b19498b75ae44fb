"""Folders of every model type as networks: they compute what transformers does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.workers.engine.hf_folders import SMALL, entries_of, forged, model_of, zipped
from tests.workers.engine.hostile import pack
from workers.engine.admit.hf_config import ARCHITECTURES
from workers.engine.formats.hf import reader
from workers.engine.formats.hf.signatures import outputs_of
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Dimension, Network
from workers.engine.layers.find import find

FIRST = ("BertForSequenceClassification", "GPT2LMHeadModel", "LlamaForCausalLM", "ViTForImageClassification")
EVERY = [
    pytest.param(
        model_type, architecture, marks=() if architecture in FIRST else pytest.mark.slow, id=architecture
    )
    for model_type, architectures in ARCHITECTURES.items()
    for architecture in architectures
]


def inputs_for(network: Network, batch: int, length: int, seed: int = 1) -> dict[str, Tensor]:
    """Rows that differ, the first of them padded at its end where there is a mask."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for spec in network.inputs:
        lengths = {"batch": batch, "length": length, "decoder_length": length - 1}
        size = [lengths[axis.symbol] if isinstance(axis, Dimension) else axis for axis in spec.shape]
        if spec.is_mask:
            made[spec.name] = torch.ones(size, dtype=spec.dtype)
            made[spec.name][0, -2:] = 0
        elif spec.dtype.is_floating_point:
            made[spec.name] = torch.randn(size, generator=generator)
        else:
            most = 2 if spec.name == "token_type_ids" else 40
            made[spec.name] = torch.randint(2 if most > 2 else 0, most, size, generator=generator)
    return made


def expected(model: Any, architecture: str, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What transformers makes of them."""
    whisper = architecture.startswith("Whisper") and "Audio" not in architecture
    compute = model.get_encoder() if whisper else model
    with torch.no_grad():
        outputs = compute(**inputs)
    return [outputs[name] for name in outputs_of(architecture)]


@pytest.mark.parametrize(("model_type", "architecture"), EVERY)
def test_a_folder_computes_what_the_library_computes(
    model_type: str, architecture: str, tmp_path: Path
) -> None:
    model = model_of(architecture, SMALL[model_type])
    network = canonicalise(reader.read(zipped(model, tmp_path)).network)
    for batch, length in ((1, 7), (4, 12)):
        inputs = inputs_for(network, batch, length)
        with torch.no_grad():
            found = network(*inputs.values())
        outputs = expected(model, architecture, inputs)
        for ours, theirs in zip(found if isinstance(found, tuple) else [found], outputs, strict=True):
            assert theirs.std() > 1e-3
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert sum(layer.kind != "embedding" and bool(layer.methods) for layer in find(network)) >= 2


def test_inputs_are_named_as_tokenizers_name_them(tmp_path: Path) -> None:
    network = reader.read(zipped(model_of("BertForSequenceClassification", SMALL["bert"]), tmp_path)).network
    assert [spec.name for spec in network.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {spec.dtype for spec in network.inputs} == {torch.int64}
    assert network.inputs[0].shape == (Dimension("batch"), Dimension("length", 2, 24, 24))
    assert network.inputs[1].is_mask


def test_layers_are_called_as_in_the_library(tmp_path: Path) -> None:
    model = model_of("LlamaForCausalLM", SMALL["llama"])
    network = reader.read(zipped(model, tmp_path)).network
    layers = {layer.name for layer in find(network)}
    assert {"model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj", "lm_head"} <= layers
    assert layers <= dict(model.named_modules()).keys()


def test_tied_embeddings_stay_one(tmp_path: Path) -> None:
    model = model_of("GPT2LMHeadModel", SMALL["gpt2"])
    network = reader.read(zipped(model, tmp_path)).network
    count = sum(parameter.numel() for parameter in network.module.parameters())
    assert count == sum(parameter.numel() for parameter in model.parameters())


def test_shards_and_half_precision_are_read_with_a_remark(tmp_path: Path) -> None:
    model = model_of("GPT2Model", SMALL["gpt2"]).to(torch.bfloat16)
    path = zipped(model, tmp_path, max_shard_size="4KB")
    assert len(list((tmp_path / "saved").glob("model-*.safetensors"))) > 1
    imported = reader.read(path)
    assert {parameter.dtype for parameter in imported.network.module.parameters()} == {torch.float32}
    assert torch.equal(
        imported.network.module.get_parameter("h.0.attn.c_attn.weight"), model.h[0].attn.c_attn.weight.float()
    )
    assert [remark.code for remark in imported.remarks] == ["single_precision"]


def test_heads_of_other_classes_are_left_out_with_a_remark(tmp_path: Path) -> None:
    entries = entries_of(model_of("BertModel", SMALL["bert"]), tmp_path / "saved")
    [remark] = reader.read(pack(tmp_path / "model.zip", entries)).remarks
    assert remark.code == "weights_left_out"
    assert "pooler.dense.weight" in remark.detail


def test_without_an_architecture_the_model_without_a_head_is_read(tmp_path: Path) -> None:
    entries = entries_of(model_of("BertForMaskedLM", SMALL["bert"]), tmp_path / "saved")
    config = json.loads(entries.pop("config.json"))
    del config["architectures"]
    network = reader.read(forged(tmp_path, config, entries)).network
    [output] = network.module.graph.output_node().all_input_nodes
    assert output.meta["val"].shape[-1] == SMALL["bert"]["hidden_size"]
