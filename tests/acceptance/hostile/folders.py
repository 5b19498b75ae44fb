"""Attacks on the reader of Hugging Face folders."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.acceptance.hostile import zips
from tests.acceptance.hostile.trap import Trap
from tests.acceptance.hostile.vector import Corpus
from tests.workers.engine.hf_folders import SMALL, entries_of, model_of
from tests.workers.engine.hostile import Entries, packed

CORPUS = Corpus("folder", "models", "model.zip")
vector = CORPUS.vector
CONFIG, WEIGHTS = "config.json", "model.safetensors"


@functools.cache
def good() -> Entries:
    """The files of a small BERT; the last of them is data."""
    with tempfile.TemporaryDirectory() as folder:
        entries = entries_of(model_of("BertForMaskedLM", SMALL["bert"]), Path(folder) / "model")
    return {CONFIG: entries[CONFIG], WEIGHTS: entries[WEIGHTS]}


def _config(**changes: Any) -> bytes:
    """A folder whose configuration has other fields."""
    return _with(CONFIG, json.dumps(json.loads(good()[CONFIG]) | changes).encode())


def _with(name: str, data: bytes) -> bytes:
    return packed({**good(), name: data})


zips.add_to(CORPUS, good, zips.CORE)


@vector("remote_code")
def code_by_auto_map(_: Trap) -> bytes:
    return _config(auto_map={"AutoModelForMaskedLM": "evil/model--modeling.Evil"})


@vector("code_in_folder")
def code_beside_the_model(trap: Trap) -> bytes:
    return _with("modeling_bert.py", trap.expression.encode())


@vector("code_in_folder")
def library_beside_the_model(trap: Trap) -> bytes:
    return _with("kernel.so", trap.library())


@vector("pickled_weights")
def pickled_weights(trap: Trap) -> bytes:
    return _with("pytorch_model.bin", trap.pickled)


@vector("pickled_weights")
def pickled_training_arguments(trap: Trap) -> bytes:
    return _with("training_args.bin", trap.pickled)


@vector("truncated_file")
def pickle_named_safetensors(trap: Trap) -> bytes:
    return _with(WEIGHTS, trap.pickled)


@vector()
def kernel_from_the_hub(trap: Trap) -> bytes:
    """Names that transformers takes for kernels to download and load."""
    kernel = "evil/kernel@main:forward"
    return _config(
        _attn_implementation=kernel,
        attn_implementation=kernel,
        _attn_implementation_internal=kernel,
        experts_implementation=kernel,
        use_kernels=True,
        _name_or_path=trap.target,
    )


@vector("quantised_folder")
def quantiser_of_its_own(_: Trap) -> bytes:
    return _config(quantization_config={"quant_method": "evil", "modules_to_not_convert": ["evil"]})


@vector("config_field")
def twenty_thousand_layers(_: Trap) -> bytes:
    return _config(num_hidden_layers=20_000)


@vector("missing_weights")
def network_larger_than_its_weights(_: Trap) -> bytes:
    return _config(num_hidden_layers=256, hidden_size=1 << 16, intermediate_size=1 << 16)


@vector("config_field")
def width_of_2_to_the_63(_: Trap) -> bytes:
    return _config(hidden_size=1 << 63)


@vector("config_field")
def negative_width(_: Trap) -> bytes:
    return _config(hidden_size=-1)


@vector("config_field")
def field_that_is_no_number(_: Trap) -> bytes:
    return _config(layer_norm_eps=float("nan"))


@vector("config_field")
def code_as_an_activation(trap: Trap) -> bytes:
    return _config(hidden_act=trap.expression)


@vector("unknown_model_type")
def code_as_a_model_type(trap: Trap) -> bytes:
    return _config(model_type=trap.expression)


@vector("too_deep")
def ten_thousand_levels(_: Trap) -> bytes:
    return _with(CONFIG, b'{"a":' * 10_000 + b"0" + b"}" * 10_000)


@vector("hostile_name")
def code_as_a_weights_name(trap: Trap) -> bytes:
    return _with(WEIGHTS, save({trap.expression: torch.ones(2)}))


@vector("too_large")
def header_bomb(_: Trap) -> bytes:
    length = 60 << 20
    return _with(WEIGHTS, length.to_bytes(8, "little") + b"{" + b" " * (length - 2) + b"}")


@vector("too_many_entries", "too_large")
def million_empty_tensors(_: Trap) -> bytes:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"x{place}": empty for place in range(200_000)}).encode()
    return _with(WEIGHTS, len(text).to_bytes(8, "little") + text)


@vector("shards_differ")
def shard_outside_of_the_folder(trap: Trap) -> bytes:
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"weight_map": {"a": one, "b": "../" * 16 + trap.target.lstrip("/")}}
    shards = {one: save({"a": torch.ones(2)}), two: save({"b": torch.ones(2)})}
    return packed(
        {CONFIG: good()[CONFIG], **shards, "model.safetensors.index.json": json.dumps(index).encode()}
    )


def _tokenizer(**changes: Any) -> bytes:
    """A folder with a tokenizer of two words."""
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "[UNK]", "special": True, "normalized": True}],
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"},
    }
    return _with("tokenizer.json", json.dumps(tokenizer | changes).encode())


@vector("tokenizer_pattern")
def tokenizer_with_a_regex_bomb(_: Trap) -> bytes:
    """An expression that takes exponential time on a row of letters."""
    pattern = {"Regex": "(a+)+$|((a|aa)+)+b|(.*){1,32000}c"}
    return _tokenizer(
        normalizer={"type": "Replace", "pattern": pattern, "content": "a"},
        pre_tokenizer={"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False},
    )


@vector("tokenizer_component")
def tokenizer_that_makes_a_page_of_a_letter(_: Trap) -> bytes:
    return _tokenizer(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 5000})


@vector()
def tokenizer_with_code(_: Trap) -> bytes:
    """In files that nothing here reads."""
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["tokenization.Evil", None]}}
    return packed(
        {
            **good(),
            "tokenizer_config.json": json.dumps(config).encode(),
            "chat_template.jinja": b"{{ ''.__class__.__mro__ }}{% for i in range(10**12) %}x{% endfor %}",
        }
    )
