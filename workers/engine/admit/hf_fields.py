"""The fields of a config.json, by model type, and what each may hold: it bounds the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from workers.engine.admit.archive import show
from workers.engine.errors import Rejected


@dataclass(frozen=True)
class Config:
    """A config.json that was admitted: `fields` holds known names and bounded values, nothing else of it."""

    model_type: str
    architecture: str
    fields: Mapping[str, Any]


class Field(Protocol):
    """What a field may hold."""

    def admit(self, name: str, value: object) -> Any:
        """The value as the configuration takes it; raises `Rejected` (`config_field`) with the name."""


@dataclass(frozen=True)
class Whole:
    """A whole number between two bounds, both included."""

    least: int
    most: int

    def admit(self, name: str, value: object) -> int:
        """The number; True is none."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise refused(name, value, f"a whole number from {self.least} to {self.most}")
        return value


@dataclass(frozen=True)
class Real:
    """A finite number between two bounds, both included."""

    least: float
    most: float

    def admit(self, name: str, value: object) -> float:
        """The number, as a float."""
        if type(value) not in (int, float) or not self.least <= value <= self.most:  # type: ignore[operator]
            raise refused(name, value, f"a number from {self.least:g} to {self.most:g}")
        return float(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[str | bool, ...]

    def admit(self, name: str, value: object) -> str | bool:
        """The value of ours that equals the user's."""
        for known in self.values:
            if type(value) is type(known) and value == known:
                return known
        raise refused(name, value, "one of " + ", ".join(map(str, self.values)))


@dataclass(frozen=True)
class Optional:
    """A field, or null."""

    field: Field

    def admit(self, name: str, value: object) -> Any:
        """None for null."""
        return None if value is None else self.field.admit(name, value)


@dataclass(frozen=True)
class Several:
    """A list of `least` to `most` values, whose whole numbers add up to `total` at most."""

    field: Field
    least: int
    most: int
    total: int | None = None

    def admit(self, name: str, value: object) -> list[Any]:
        """The list."""
        if type(value) is not list or not self.least <= len(value) <= self.most:
            raise refused(name, value, f"a list of {self.least} to {self.most}")
        found = [self.field.admit(name, item) for item in value]
        if self.total is not None and sum(found) > self.total:
            raise refused(name, value, f"numbers that add up to {self.total} at most")
        return found


@dataclass(frozen=True)
class Side:
    """The side of a square, or a list of two numbers."""

    length: Whole

    def admit(self, name: str, value: object) -> int | list[int]:
        """As it stands."""
        if type(value) is list:
            return Several(self.length, 2, 2).admit(name, value)
        return self.length.admit(name, value)


class Rope:
    """How rotary embeddings are scaled. What depends on the length of the input cannot be traced."""

    def admit(self, name: str, value: object) -> dict[str, Any] | None:
        """The parameters; older files call the type `type`."""
        if value is None:
            return None
        if type(value) is not dict:
            raise refused(name, value, "an object of numbers")
        named = {"rope_type" if key == "type" else key: item for key, item in value.items()}
        unknown = sorted(set(map(str, named)) - set(_ROPE))
        if unknown:
            raise refused(f"{name}.{unknown[0]}", named[unknown[0]], "left out")
        return {
            key: _ROPE[key].admit(f"{name}.{key}", item) for key, item in named.items() if item is not None
        }


def refused(name: str, value: object, expected: str) -> Rejected:
    """The rejection of a field's value."""
    field = name if name.isascii() and name.isprintable() and len(name) <= 80 else show(name)
    return Rejected(
        "config_field",
        f"The field {field} of config.json is {shown(value)}; what is accepted is {expected}.",
        hint="Upload the folder as save_pretrained wrote it. Larger models and other variants are not taken.",
        field=field,
    )


def shown(value: object) -> str:
    """A value from a file made fit for a message."""
    if isinstance(value, str):
        return show(value)
    if isinstance(value, bool | float | None):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else "a huge number"
    return f"of type {type(value).__name__}"


_FLAG = Choice((True, False))
_OFF = Choice((False,))
_PROBABILITY, _EPSILON = Real(0, 1), Real(0, 1)
_LAYERS = Whole(1, 256)
_WIDTH = Whole(1, 1 << 16)
_HEADS = Whole(1, 1024)
_TABLE = Whole(1, 1 << 20)  # tokens, positions, labels
_TOKEN = Whole(-1, 1 << 20)
_SIDE = Side(Whole(1, 2048))
_CHANNELS = Whole(1, 64)
_ACTIVATION = Choice(
    (
        *("gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_accurate"),
        *("hardswish", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid"),
        *("silu", "swish", "tanh"),
    )
)
_ROPE: Mapping[str, Field] = {
    "rope_type": Choice(("default", "linear", "llama3", "yarn")),
    "rope_theta": Real(1, 1e12),
    "partial_rotary_factor": Real(0.01, 1),
    "original_max_position_embeddings": _TABLE,
    "truncate": _FLAG,
    **dict.fromkeys(
        (
            *("factor", "low_freq_factor", "high_freq_factor", "attention_factor"),
            *("beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
        ),
        Real(0, 1e6),
    ),
}

COMMON: Mapping[str, Field] = {
    "num_labels": _TABLE,
    "pad_token_id": Optional(_TOKEN),
    "tie_word_embeddings": _FLAG,
}
"""What every model type may have."""

_BERT: Mapping[str, Field] = {
    "vocab_size": _TABLE,
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _WIDTH,
    "hidden_act": _ACTIVATION,
    "hidden_dropout_prob": _PROBABILITY,
    "attention_probs_dropout_prob": _PROBABILITY,
    "max_position_embeddings": _TABLE,
    "type_vocab_size": _TABLE,
    "layer_norm_eps": _EPSILON,
    "classifier_dropout": Optional(_PROBABILITY),
    "position_embedding_type": Choice(("absolute",)),
    "is_decoder": _OFF,
    "add_cross_attention": _OFF,
}
_LLAMA: Mapping[str, Field] = {
    "vocab_size": _TABLE,
    "hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": Optional(_HEADS),
    "head_dim": Optional(_WIDTH),
    "hidden_act": _ACTIVATION,
    "max_position_embeddings": _TABLE,
    "rms_norm_eps": _EPSILON,
    "attention_dropout": Optional(_PROBABILITY),
    "rope_parameters": Rope(),
    "rope_scaling": Rope(),
    "rope_theta": Optional(Real(1, 1e12)),
    "partial_rotary_factor": Real(0.01, 1),
}
_SLIDING: Mapping[str, Field] = {"sliding_window": Optional(_TABLE)}
_VIT: Mapping[str, Field] = {
    **{
        name: _BERT[name]
        for name in (
            *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
            *("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"),
        )
    },
    "image_size": _SIDE,
    "patch_size": _SIDE,
    "num_channels": _CHANNELS,
    "qkv_bias": _FLAG,
    "pooler_output_size": Optional(_WIDTH),
    "pooler_act": _ACTIVATION,
}

FIELDS: Mapping[str, Mapping[str, Field]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "mpnet": {
        **{name: field for name, field in _BERT.items() if name != "type_vocab_size"},
        "relative_attention_num_buckets": Whole(2, 1024),
    },
    "distilbert": {
        "vocab_size": _TABLE,
        "max_position_embeddings": _TABLE,
        "n_layers": _LAYERS,
        "n_heads": _HEADS,
        "dim": _WIDTH,
        "hidden_dim": _WIDTH,
        "activation": _ACTIVATION,
        "sinusoidal_pos_embds": _FLAG,
        **dict.fromkeys(("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"), _PROBABILITY),
    },
    "gpt2": {
        "vocab_size": _TABLE,
        "n_positions": _TABLE,
        "n_embd": _WIDTH,
        "n_layer": _LAYERS,
        "n_head": _HEADS,
        "n_inner": Optional(_WIDTH),
        "activation_function": _ACTIVATION,
        "layer_norm_epsilon": _EPSILON,
        "add_cross_attention": _OFF,
        "classifier_dropout": Optional(_PROBABILITY),
        "hidden_dropout": Optional(_PROBABILITY),
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), _PROBABILITY),
        **dict.fromkeys(
            ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"), _FLAG
        ),
    },
    "llama": {**_LLAMA, "attention_bias": _FLAG, "mlp_bias": _FLAG},
    "mistral": {**_LLAMA, **_SLIDING},
    "qwen2": {
        **_LLAMA,
        **_SLIDING,
        "use_sliding_window": _FLAG,
        "max_window_layers": Whole(0, 1024),
        "layer_types": Optional(Several(Choice(("full_attention", "sliding_attention")), 1, 256)),
    },
    "t5": {
        "vocab_size": _TABLE,
        "d_model": _WIDTH,
        "d_kv": _WIDTH,
        "d_ff": _WIDTH,
        "num_layers": _LAYERS,
        "num_decoder_layers": Optional(_LAYERS),
        "num_heads": _HEADS,
        "relative_attention_num_buckets": Whole(2, 1024),
        "relative_attention_max_distance": Whole(2, 1 << 16),
        "dropout_rate": _PROBABILITY,
        "classifier_dropout": Optional(_PROBABILITY),
        "layer_norm_epsilon": _EPSILON,
        "feed_forward_proj": Choice(("relu", "gelu", "silu", "gated-gelu", "gated-relu", "gated-silu")),
    },
    "vit": _VIT,
    "deit": _VIT,
    "swin": {
        "image_size": _SIDE,
        "patch_size": _SIDE,
        "num_channels": _CHANNELS,
        "embed_dim": Whole(1, 1 << 12),
        "depths": Several(Whole(1, 64), 1, 6, total=128),
        "num_heads": Several(_HEADS, 1, 6),
        "window_size": Whole(1, 32),
        "mlp_ratio": Real(0.1, 16),
        "qkv_bias": _FLAG,
        "hidden_act": _ACTIVATION,
        "use_absolute_embeddings": _FLAG,
        "layer_norm_eps": _EPSILON,
        **dict.fromkeys(
            ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), _PROBABILITY
        ),
    },
    "resnet": {
        "num_channels": _CHANNELS,
        "embedding_size": Whole(1, 1 << 13),
        "hidden_sizes": Several(Whole(1, 1 << 14), 1, 6),
        "depths": Several(Whole(1, 128), 1, 6, total=256),
        "layer_type": Choice(("basic", "bottleneck")),
        "hidden_act": _ACTIVATION,
        "downsample_in_first_stage": _FLAG,
        "downsample_in_bottleneck": _FLAG,
    },
    "whisper": {
        "vocab_size": _TABLE,
        "num_mel_bins": Whole(1, 1024),
        "activation_function": _ACTIVATION,
        "d_model": _WIDTH,
        "scale_embedding": _FLAG,
        "max_source_positions": Whole(1, 1 << 16),
        "max_target_positions": _TABLE,
        "classifier_proj_size": _WIDTH,
        "use_weighted_layer_sum": _OFF,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), _LAYERS),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), _HEADS),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), _WIDTH),
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), _PROBABILITY),
    },
}
"""What each model type may have besides."""

ALIASES: Mapping[str, Mapping[str, str]] = {
    "distilbert": {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "t5": {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    "swin": {"num_attention_heads": "num_heads"},
    "whisper": {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"},
}
"""Second names that transformers knows for some fields, by model type."""


def fields_of(model_type: str) -> dict[str, Field]:
    """Every field of a known model type, by name."""
    return {**COMMON, **FIELDS[model_type]}


def names(fields: Iterable[str]) -> str:
    """Some names, in words."""
    return ", ".join(sorted(fields))
