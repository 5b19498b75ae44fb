"""Whole jobs on Hugging Face folders: what comes out takes what the folder's model takes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.workers.engine.hf_folders import SMALL, model_of, zipped
from tests.workers.stages.jobs import Finished, run_job
from workers.engine.formats.hf import opened
from workers.stages import inspect


def text(rows: int, length: int, seed: int, *names: str) -> dict[str, Any]:
    """Rows of tokens, half of them padded."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, Any] = {name: np.zeros((rows, length), np.int64) for name in names}
    mask = np.ones((rows, length), np.int64)
    mask[::2, length // 2 :] = 0
    return {"input_ids": generator.integers(2, 40, (rows, length)), "attention_mask": mask, **arrays}


def compress(folder: Path, architecture: str, model_type: str, train: Any, **spec: Any) -> Finished:
    path = zipped(model_of(architecture, SMALL[model_type]), folder)
    return run_job(
        *(folder / "job", path, train, train),
        target={"of": "parameters", "keep": 0.6},
        outputs=["pt2", "onnx"],
        **spec,
    )


def check(finished: Finished, arrays: dict[str, Any]) -> None:
    """Cheaper, and the same in torch and in ONNX Runtime."""
    report = finished.report
    assert finished.candidate.parameters <= 0.6 * report.original.parameters
    names = [name for name in arrays if name != "target"]
    outputs = finished.outputs(*(arrays[name] for name in names))
    session = onnxruntime.InferenceSession(finished.onnx)
    assert [item.name for item in session.get_inputs()] == names
    [found] = session.run(None, {name: arrays[name] for name in names})
    np.testing.assert_allclose(found, outputs.numpy(), rtol=1e-3, atol=1e-4)


def test_a_classifier_of_padded_text(tmp_path: Path) -> None:
    train = text(64, 12, 0, "token_type_ids")
    train["target"] = np.arange(64) % 2
    check(compress(tmp_path, "BertForSequenceClassification", "bert", train), train)


@pytest.mark.slow
def test_a_language_model_of_padded_text(tmp_path: Path) -> None:
    train = text(48, 12, 0)
    train["target"] = np.hstack([train["input_ids"][:, 1:], np.full((48, 1), -100)])
    finished = compress(tmp_path, "LlamaForCausalLM", "llama", train, task="language-modeling")
    check(finished, train)


@pytest.mark.slow
def test_a_classifier_of_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    train = {
        "pixel_values": generator.standard_normal((48, 3, 16, 16), np.float32),
        "target": np.arange(48) % 5,
    }
    check(compress(tmp_path, "ViTForImageClassification", "vit", train), train)


def test_an_uploaded_folder_is_described(tmp_path: Path) -> None:
    summary = inspect.model(zipped(model_of("GPT2LMHeadModel", SMALL["gpt2"]), tmp_path), "zip")
    assert [(item.name, item.dtype, item.shape) for item in summary.inputs] == [
        ("input_ids", "int64", ["batch", "length"]),
        ("attention_mask", "int64", ["batch", "length"]),
    ]
    assert summary.inputs[0].maximum == SMALL["gpt2"]["vocab_size"] - 1
    assert {"transformer.h.1.mlp.c_fc", "lm_head"} <= {layer.name for layer in summary.layers}
    assert summary.menus


def test_a_folder_comes_out(tmp_path: Path) -> None:
    path = zipped(model_of("GPT2LMHeadModel", SMALL["gpt2"]), tmp_path)
    target = {"of": "parameters", "keep": 0.6}
    finished = run_job(tmp_path / "job", path, target=target, outputs=["huggingface"])
    assert finished.candidate.huggingface == "load.py"
    made = {file.name for file in (tmp_path / "job" / "artifacts").iterdir()}
    assert made == {"candidate-0-factors.zip", "report.json"}
    model = opened.model_in(tmp_path / "job" / "artifacts" / "candidate-0-factors.zip")
    small = int(model.lm_head[0].weight.numel())  # it lies in either direction
    assert sum(tensor.numel() for tensor in model.parameters()) == finished.candidate.parameters + small


@pytest.mark.slow
def test_a_folder_of_plain_layers_comes_out(tmp_path: Path) -> None:
    path = zipped(model_of("GPT2LMHeadModel", SMALL["gpt2"]), tmp_path)
    finished = run_job(tmp_path / "job", path, target={"keep": 1.0}, outputs=["huggingface"])
    assert finished.candidate.huggingface == "from_pretrained"


@pytest.mark.slow
def test_a_folder_that_cannot_be_is_a_notice(tmp_path: Path) -> None:
    path = zipped(model_of("BertModel", SMALL["bert"]), tmp_path)
    finished = run_job(
        *(tmp_path / "job", path),
        methods=["tensor_train"],
        target={"of": "parameters", "keep": 0.8},
        outputs=["pt2", "huggingface"],
    )
    became = {layer.name for layer in finished.candidate.layers if layer.method == "tensor_train"}
    assert became & {layer for code, layer in finished.notices if code == "folder_unsupported"}
    assert finished.candidate.huggingface is None
    assert {file.suffix for file in (tmp_path / "job" / "artifacts").iterdir()} == {".pt2", ".json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("T5ForConditionalGeneration", "t5"),
        ("SwinForImageClassification", "swin"),
        ("WhisperForConditionalGeneration", "whisper"),
        ("Qwen2ForCausalLM", "qwen2"),
    ],
)
def test_models_without_data(architecture: str, model_type: str, tmp_path: Path) -> None:
    path = zipped(model_of(architecture, SMALL[model_type]), tmp_path)
    finished = run_job(
        tmp_path / "job", path, target={"of": "parameters", "keep": 0.6}, outputs=["pt2", "onnx"]
    )
    assert finished.onnx.exists()
    assert finished.is_finite()
