"""Folders out: transformers, or the loader that comes along, computes what the network does."""

import ast
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.engine import texts
from tests.workers.engine.hf_folders import SMALL, entries_of, model_of, zipped
from tests.workers.engine.hostile import pack
from workers.engine.errors import EngineError
from workers.engine.formats.hf import load, opened, reader, writer
from workers.engine.graph import surgery
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network
from workers.engine.layers.find import find
from workers.engine.measure.cost import parameters

Forms = dict[str, writer.Form]
IMPORTS = {"collections.abc", "json", "pathlib", "safetensors.torch", "torch", "transformers", "typing"}


def read(source: Path) -> Network:
    return canonicalise(reader.read(source).network)


def factorise(network: Network, method: str | None = None) -> Forms:
    """Put factors into every layer, in place: of the methods that it may take one by its number."""
    forms = {}
    for number, layer in enumerate(find(network)):
        taken = [name for name in layer.methods if name == method or (not method and name not in UNSUITED)]
        if taken:
            chosen = layer.methods[taken[number % len(taken)]]
            rank = tuple(max(1, most // 2) for most in chosen.max_rank)
            chosen.rewrite(rank)
            forms[layer.name] = writer.Form(chosen.method, rank)
    surgery.prune(network.module)
    return forms


UNSUITED = ("tensor_train", "full_tucker")


def difference(network: Network, path: Path) -> float:
    """The largest one between a network and the packed folder of it, relative to the largest output."""
    torch.manual_seed(0)
    tokens = ("input_ids", "decoder_input_ids")
    inputs = [
        torch.randint(2, 20, example.shape) if spec.name in tokens else example
        for spec, example in zip(network.inputs, network.examples(4), strict=True)
    ]
    with torch.inference_mode():
        expected = network(*inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    found = opened.outputs(path, [tensor.numpy() for tensor in inputs])
    pairs = zip(expected, map(torch.from_numpy, found), strict=True)
    return max(float((ours - theirs).abs().max() / ours.abs().max()) for ours, theirs in pairs)


def manifest_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as packed:
        return json.loads(packed.read("ranks.json"))


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("GPT2LMHeadModel", "gpt2"),
        ("BertForMaskedLM", "bert"),
        ("WhisperForConditionalGeneration", "whisper"),
        pytest.param("T5ForConditionalGeneration", "t5", marks=pytest.mark.slow),
        pytest.param("ResNetForImageClassification", "resnet", marks=pytest.mark.slow),
        pytest.param("SwinForImageClassification", "swin", marks=pytest.mark.slow),
    ],
)
def test_a_factorised_network_opens_through_its_loader(
    architecture: str, model_type: str, tmp_path: Path
) -> None:
    source = zipped(model_of(architecture, SMALL[model_type]), tmp_path)
    network = read(source)
    forms = factorise(network)
    path = writer.write(source, network, forms, tmp_path / "candidate-0")
    assert path.name == "candidate-0-factors.zip"
    assert difference(network, path) < 1e-5
    described = {
        layer["layer"]: (layer["method"], tuple(layer["rank"])) for layer in manifest_of(path)["layers"]
    }
    assert described == {name: (form.method, form.rank) for name, form in forms.items()}


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("BertForMaskedLM", "bert"),
        pytest.param("GPT2LMHeadModel", "gpt2", marks=pytest.mark.slow),
        pytest.param("WhisperForConditionalGeneration", "whisper", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_plain_layers_opens_in_transformers(
    architecture: str, model_type: str, tmp_path: Path
) -> None:
    source = zipped(model_of(architecture, SMALL[model_type]), tmp_path)
    network = read(source)
    with torch.no_grad():
        for parameter in network.module.parameters():
            parameter.mul_(1.1)
    path = writer.write(source, network, {}, tmp_path / "candidate-0")
    assert path.name == "candidate-0-folder.zip"
    assert difference(network, path) < 1e-5
    assert difference(read(source), path) > 1e-3  # the change is in the folder


def test_tied_ends_share_their_table(tmp_path: Path) -> None:
    source = zipped(model_of("GPT2LMHeadModel", SMALL["gpt2"]), tmp_path)
    network = read(source)
    layer = next(layer for layer in find(network) if layer.tied)
    layer.methods["svd"].rewrite((3,))
    surgery.prune(network.module)
    path = writer.write(source, network, {layer.name: writer.Form("svd", (3,))}, tmp_path / "candidate-0")
    model = opened.model_in(path)
    assert model.lm_head[1].weight is model.transformer.wte[0].weight
    d, r = SMALL["gpt2"]["n_embd"], 3  # the small factor lies in either direction
    assert sum(tensor.numel() for tensor in model.parameters()) == parameters(network) + d * r


def test_a_loaded_model_generates(tmp_path: Path) -> None:
    source = zipped(model_of("LlamaForCausalLM", SMALL["llama"]), tmp_path)
    network = read(source)
    model = opened.model_in(writer.write(source, network, factorise(network), tmp_path / "candidate-0"))
    found = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, eos_token_id=None)
    expected = torch.tensor([[5, 6, 7]])
    for _ in range(4):
        logits = network(expected, torch.ones_like(expected))
        expected = torch.cat([expected, logits[:, -1:].argmax(-1)], 1)
    assert found.tolist() == expected.tolist()


def test_what_is_no_row_of_modules_is_refused_by_its_layer(tmp_path: Path) -> None:
    source = zipped(model_of("BertModel", SMALL["bert"]), tmp_path)
    network = read(source)
    forms = factorise(network, "tensor_train")
    with pytest.raises(EngineError) as refused:
        writer.write(source, network, forms, tmp_path / "candidate-0")
    assert (refused.value.code, refused.value.field) == ("folder_unsupported", "outputs")
    assert refused.value.layer in forms
    assert not list(tmp_path.glob("candidate-0*"))


def test_smaller_heads_are_refused_by_their_layer(tmp_path: Path) -> None:
    source = zipped(model_of("BertModel", SMALL["bert"]), tmp_path)
    network = read(source)
    pair = next(layer for layer in find(network, joint=True) if "joint_svd" in layer.methods)
    pair.methods["joint_svd"].rewrite((4,))
    surgery.prune(network.module)
    with pytest.raises(EngineError, match=r"self\.(query|key|value)"):
        writer.write(source, network, {}, tmp_path / "candidate-0")


def test_poolers_labels_and_files_beside_the_model_go_along(tmp_path: Path) -> None:
    labels = {"id2label": {0: "sad", 1: "glad"}, "label2id": {"sad": 0, "glad": 1}}
    model = model_of("BertModel", {**SMALL["bert"], **labels})
    beside = {"tokenizer.json": texts.word_pieces().encode(), "vocab.txt": b"a\nb\n"}
    files = entries_of(model, tmp_path / "saved") | beside
    source = pack(tmp_path / "model.zip", files)
    network = read(source)
    path = writer.write(source, network, factorise(network), tmp_path / "candidate-0")
    found = opened.model_in(path)
    torch.testing.assert_close(found.pooler.dense.weight, model.pooler.dense.weight)
    assert found.config.id2label == labels["id2label"]
    with zipfile.ZipFile(path) as packed:
        assert {name: packed.read(name) for name in beside} == beside


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    source = zipped(model_of("BertModel", SMALL["bert"]), tmp_path)
    network = read(source)
    forms = factorise(network)
    one, two = (writer.write(source, network, forms, tmp_path / name).read_bytes() for name in ("1", "2"))
    assert one == two


def test_the_loader_is_short_and_stands_alone() -> None:
    text = Path(str(load.__file__)).read_text()
    assert len(text.splitlines()) < 100
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert names <= IMPORTS
