"""Hugging Face folders to test on: small models with random weights, packed as users do."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.workers.engine.hostile import Entries, pack
from workers.engine.formats.hf.library import library

Fields = dict[str, Any]

_BERT: Fields = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "layer_norm_eps": 1e-5,
}
_LLAMA: Fields = {
    **{name: value for name, value in _BERT.items() if name != "layer_norm_eps"},
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
}
_VIT: Fields = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
    "num_labels": 5,
}
SMALL: dict[str, Fields] = {
    "bert": {**_BERT, "type_vocab_size": 2},
    "distilbert": {
        "vocab_size": 40,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 24,
    },
    "roberta": {**_BERT, "pad_token_id": 1},
    "mpnet": {**_BERT, "pad_token_id": 1},
    "gpt2": {"vocab_size": 40, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "llama": {**_LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "mistral": {**_LLAMA, "sliding_window": 4},
    "qwen2": {**_LLAMA, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "t5": {
        "vocab_size": 40,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
    },
    "vit": _VIT,
    "deit": _VIT,
    "swin": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "window_size": 4,
        "num_labels": 5,
    },
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 2],
        "num_labels": 5,
        "layer_type": "basic",
    },
    "whisper": {
        "vocab_size": 60,
        "num_mel_bins": 8,
        "d_model": 16,
        "max_source_positions": 20,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_target_positions": 10,
        "pad_token_id": 0,
    },
}
"""The fields of a small model of every type."""


def model_of(architecture: str, fields: Fields, seed: int = 0) -> Any:
    """A model with random weights, none of them zero; transformers' own, in evaluation mode."""
    transformers = library()
    torch.manual_seed(seed)
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def entries_of(model: Any, folder: Path, **saving: Any) -> Entries:
    """The files that save_pretrained writes."""
    model.save_pretrained(folder, **saving)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def zipped(model: Any, folder: Path, **saving: Any) -> Path:
    """The model as users upload it."""
    return pack(folder / "model.zip", entries_of(model, folder / "saved", **saving))


def forged(folder: Path, config: object, weights: Entries | None = None) -> Path:
    """A zip of a config.json, given as a document or as bytes, and of files."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    files = {"model.safetensors": save({"a.weight": torch.zeros(2)})} if weights is None else weights
    return pack(folder / "model.zip", {"config.json": text, **files})
