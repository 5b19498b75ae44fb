"""What the networks of each model type take and give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from workers.engine.graph.network import Dimension, Input

_LENGTH = 128  # of a sequence, where costs are counted; less where the model takes no more
_IMAGE = 224  # of images where the configuration has no size


@dataclass(frozen=True)
class Signature:
    """The inputs by name, in words and in order; what else `forward` is called with; a note for users."""

    inputs: tuple[str, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    attention: str = "sdpa"


_TEXT = ("input_ids", "attention_mask")
_NO_CACHE = {"use_cache": False}
_LAST_TOKENS = "without a cache: whole sequences"
SIGNATURES: Mapping[str, Signature] = {
    "bert": Signature((*_TEXT, "token_type_ids"), note="token_type_ids are zeros for one sentence"),
    "distilbert": Signature(_TEXT),
    "roberta": Signature(_TEXT),
    "mpnet": Signature(_TEXT),
    "gpt2": Signature(_TEXT, _NO_CACHE, _LAST_TOKENS),
    "llama": Signature(_TEXT, _NO_CACHE, _LAST_TOKENS),
    "mistral": Signature(_TEXT, _NO_CACHE, _LAST_TOKENS),
    "qwen2": Signature(_TEXT, _NO_CACHE, _LAST_TOKENS),
    "t5": Signature((*_TEXT, "decoder_input_ids"), _NO_CACHE, _LAST_TOKENS, attention="eager"),
    "vit": Signature(("pixel_values",)),
    "deit": Signature(("pixel_values",)),
    "swin": Signature(("pixel_values",)),
    "resnet": Signature(("pixel_values",), note=f"images of {_IMAGE} × {_IMAGE}"),
    "whisper": Signature(("input_features",), note="the encoder alone"),
}
"""By model type."""

TOKENS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""The inputs that follow from a text."""

ENCODERS = {"WhisperModel": "encoder", "WhisperForConditionalGeneration": "model.encoder"}
"""Of which classes a part is read, and where it is."""

_ENCODERS = frozenset({"T5EncoderModel"})  # of types that decode otherwise
_WITHOUT_POOLER = frozenset({"BertModel", "RobertaModel", "MPNetModel", "ViTModel", "DeiTModel", "SwinModel"})


def predicts_tokens(architecture: str) -> bool:
    """Whether a class scores for every token which one follows it, having seen those before."""
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def construction(architecture: str) -> dict[str, Any]:
    """What a class is made with besides its configuration: no pooler, since its output is not read."""
    return {"add_pooling_layer": False} if architecture in _WITHOUT_POOLER else {}


def outputs_of(architecture: str) -> tuple[str, ...]:
    """The outputs that are read, by their names in transformers."""
    if architecture.endswith("ForQuestionAnswering"):
        return "start_logits", "end_logits"
    hidden = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
    return ("last_hidden_state",) if hidden or architecture in ENCODERS else ("logits",)


def inputs_of(model_type: str, architecture: str, config: Any) -> list[Input]:
    """The inputs, with a variable batch, and variable lengths where there are sequences of tokens.

    `config` is transformers' own configuration of the model.
    """
    batch = Dimension("batch")
    if model_type == "whisper":
        return [
            Input(
                "input_features", torch.float32, (batch, config.num_mel_bins, 2 * config.max_source_positions)
            )
        ]
    if model_type in ("vit", "deit", "swin", "resnet"):
        size = getattr(config, "image_size", _IMAGE)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return [Input("pixel_values", torch.float32, (batch, config.num_channels, height, width))]
    taken = SIGNATURES[model_type].inputs
    names = taken if architecture not in _ENCODERS else [name for name in taken if not _is_decoded(name)]
    length = _length("length", model_type, config)
    decoded = _length("decoder_length", model_type, config)
    return [Input(name, torch.int64, (batch, decoded if _is_decoded(name) else length)) for name in names]


def keywords_of(model_type: str, architecture: str) -> dict[str, Any]:
    """What `forward` is called with besides the inputs."""
    keywords = {} if architecture in _ENCODERS else SIGNATURES[model_type].keywords
    return {**keywords, "return_dict": True}


def _is_decoded(name: str) -> bool:
    return name.startswith("decoder")


def _length(symbol: str, model_type: str, config: Any) -> Dimension:
    """RoBERTa and MPNet count positions from after the number of the padding token."""
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and model_type in ("roberta", "mpnet"):
        most -= (config.pad_token_id if model_type == "roberta" else 1) + 1
    return Dimension(symbol, 2, most, _LENGTH if most is None else min(_LENGTH, most))
