"""Hostile and broken configurations."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.workers.engine.hf_folders import SMALL
from tests.workers.engine.hostile import rejection
from workers.engine.admit import hf_config
from workers.engine.admit.hf_config import ARCHITECTURES
from workers.engine.admit.hf_fields import ALIASES, FIELDS, fields_of
from workers.engine.errors import Rejected
from workers.engine.formats.hf.library import library

# What transformers' configurations have besides: it starts training, steers generation or names things.
_WITHOUT_EFFECT = {
    *("transformers_version", "architectures", "output_hidden_states", "return_dict", "dtype"),
    *("chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id", "problem_type"),
    *("initializer_range", "initializer_factor", "init_std", "use_cache", "encoder_stride", "pretraining_tp"),
    *("bos_token_id", "eos_token_id", "decoder_start_token_id", "suppress_tokens", "begin_suppress_tokens"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    *("summary_first_dropout", "median_filter_width", "_out_features", "_out_indices", "is_decoder"),
    *("encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment"),
    *("mask_time_prob", "mask_time_length", "mask_time_min_masks"),
    *("mask_feature_prob", "mask_feature_length", "mask_feature_min_masks"),
}


def admitted(model_type: str, **fields: Any) -> dict[str, Any]:
    return dict(hf_config.admit(json.dumps({"model_type": model_type, **fields}).encode()).fields)


def refusal(document: object) -> Rejected:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    began = time.perf_counter()
    rejected = rejection(lambda _: hf_config.admit(data), Path("/nowhere/config.json"))
    assert time.perf_counter() - began < 1.0
    return rejected


@pytest.mark.parametrize("model_type", FIELDS)
def test_the_tables_have_every_field_that_the_installed_library_knows(model_type: str) -> None:
    kind = getattr(library(), ARCHITECTURES[model_type][0]).config_class
    assert kind.model_type == model_type
    known = {field.name for field in dataclasses.fields(kind)}
    assert known - _WITHOUT_EFFECT <= set(fields_of(model_type))
    aliases = {alias: name for alias, name in kind.attribute_map.items() if alias != "num_key_value_heads"}
    assert aliases.items() - {
        ("num_hidden_layers", "encoder_layers"),
        ("num_hidden_layers", "num_layers"),
    } <= (ALIASES.get(model_type, {}).items())


@pytest.mark.parametrize("model_type", SMALL)
def test_known_fields_are_taken_and_all_others_left_out(model_type: str) -> None:
    hostile = {
        "_attn_implementation": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "torch_dtype": "load",
        "dtype": "ops",
        "_name_or_path": "evil/model",
        "transformers_weights": "../x.bin",
        "fusion_config": {"a": True},
        "experts_implementation": "evil/kernel",
        "torchscript": True,
        "_attn_implementation_internal": "evil/kernel",
        "custom_generate": "x.py",
    }
    assert admitted(model_type, **SMALL[model_type], **hostile) == SMALL[model_type]


def test_labels_are_counted_and_their_names_left_out() -> None:
    assert admitted("vit", id2label={"0": "a", "1": "b", "2": "__import__"}) == {"num_labels": 3}


def test_second_names_are_those_of_the_first() -> None:
    assert admitted("gpt2", hidden_size=8, num_attention_heads=2) == {"n_embd": 8, "n_head": 2}
    assert refusal({"model_type": "gpt2", "num_hidden_layers": 20_000}).field == "num_hidden_layers"


def test_older_files_name_the_type_of_rotary_embeddings_otherwise() -> None:
    scaling = {"type": "linear", "factor": 2}
    assert admitted("llama", rope_scaling=scaling)["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"num_hidden_layers": 20_000}, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": 1e3}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"hidden_size": 10**400}, "hidden_size"),
        ({"vocab_size": [1]}, "vocab_size"),
        ({"max_position_embeddings": 1 << 30}, "max_position_embeddings"),
        ({"num_attention_heads": 1 << 20}, "num_attention_heads"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ({"hidden_act": "__import__"}, "hidden_act"),
        ({"hidden_act": "xielu"}, "hidden_act"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling.rope_type"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling.rope_type"),
        ({"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention"),
        ({"rope_scaling": {"factor": 1e300}}, "rope_scaling.factor"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"id2label": {}}, "id2label"),
        ({"id2label": [1]}, "id2label"),
        ({"num_labels": 1 << 30}, "num_labels"),
        ({"layer_types": ["full_attention"] * 3, "num_hidden_layers": 2}, "layer_types"),
        ({"layer_types": ["full_attention"] * 10_000}, "layer_types"),
        ({"layer_types": ["mamba"]}, "layer_types"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"per_layer_config": {"0": {"hidden_size": 1}}}, "per_layer_config"),
    ],
)
def test_fields_out_of_bounds_are_refused_by_name(fields: dict[str, Any], field: str) -> None:
    rejected = refusal({"model_type": "qwen2", **fields})
    assert (rejected.code, rejected.field) == ("config_field", field)
    assert field in rejected.detail
    assert len(rejected.detail) < 400


def test_stages_are_bounded_together() -> None:
    assert refusal({"model_type": "resnet", "depths": [100, 100, 100, 100]}).field == "depths"
    assert refusal({"model_type": "swin", "depths": [1, 1], "num_heads": [1]}).field == "depths"
    assert refusal({"model_type": "swin", "window_size": 1 << 20}).field == "window_size"
    assert refusal({"model_type": "vit", "image_size": [224, 1 << 20]}).field == "image_size"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "unknown_model_type"),
        ({"model_type": "bert2"}, "unknown_model_type"),
        ({"model_type": ["bert"]}, "unknown_model_type"),
        ({"model_type": "__class__"}, "unknown_model_type"),
        ({"model_type": "bert", "architectures": ["Trainer"]}, "unknown_architecture"),
        ({"model_type": "bert", "architectures": ["GPT2Model"]}, "unknown_architecture"),
        ({"model_type": "bert", "architectures": "x" * 10_000}, "unknown_architecture"),
        ({"model_type": "bert", "architectures": ["BertModel", "BertForMaskedLM"]}, "unknown_architecture"),
        ({"model_type": "bert", "auto_map": {"AutoModel": "evil--code.Model"}}, "remote_code"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantised_folder"),
        ({"model_type": "bert", "is_decoder": True}, "config_field"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "config_field"),
        (b"[" * 10_000, "too_deep"),
        (b'{"a":' * 10_000, "too_deep"),
        (b'{"model_type": "bert", "hidden_size": ' + b"9" * 10_000 + b"}", "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        (b"", "malformed"),
    ],
)
def test_what_is_not_known_or_not_bounded_is_refused(document: object, code: str) -> None:
    assert refusal(document).code == code


def test_deep_values_that_can_be_parsed_do_no_harm() -> None:
    deep = b"[" * 500 + b"]" * 500
    assert refusal(b'{"model_type": ' + deep + b"}").code == "unknown_model_type"
    assert refusal(b'{"model_type": "bert", "hidden_size": ' + deep + b"}").field == "hidden_size"
    assert refusal(b'{"model_type": "bert", "architectures": ' + deep + b"}").code == "unknown_architecture"


def test_an_empty_marker_of_remote_code_or_quantisation_says_nothing() -> None:
    assert admitted("bert", auto_map={}, quantization_config=None, pruned_heads={}) == {}
