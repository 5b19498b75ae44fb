"""Hostile and broken Hugging Face folders: what their archives hold."""

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tests.workers.engine.hf_folders import forged
from tests.workers.engine.hostile import Entries, pack, rejection
from workers.engine.admit import hf_folder

CONFIG = {"model_type": "bert", "architectures": ["BertModel"]}
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def admit(path: Path) -> dict[str, tuple[int, ...]]:
    with hf_folder.admit(path) as (folder, _):
        return {array.name: array.shape for shard in folder.shards for array in shard.arrays}


def code(path: Path) -> str:
    began = time.perf_counter()
    rejected = rejection(admit, path)
    assert time.perf_counter() - began < 1.0
    return rejected.code


def weights(*names: str) -> bytes:
    return save({name: torch.ones(2, 3) for name in names})


def sharded(index: dict[str, Any], first: bytes = weights("a"), second: bytes = weights("b.c")) -> Entries:
    return {ONE: first, TWO: second, INDEX: json.dumps({"weight_map": index}).encode()}


def test_files_beside_the_model_are_not_read(tmp_path: Path) -> None:
    beside = {
        "tokenizer.json": b"{",
        "README.md": b"\xff",
        "generation_config.json": b"",
        "spiece.model": b"x",
    }
    path = forged(tmp_path, CONFIG, {"model.safetensors": weights("encoder.layer.0.weight"), **beside})
    assert admit(path) == {"encoder.layer.0.weight": (2, 3)}


@pytest.mark.parametrize("beside", [{}, {"__MACOSX/model/._config.json": b"x", "model/.DS_Store": b"y"}])
def test_the_folder_itself_may_be_in_the_zip(beside: Entries, tmp_path: Path) -> None:
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights("a")}
    inside = {f"model/{name}": data for name, data in files.items()}
    assert admit(pack(tmp_path / "model.zip", {"model/": b"", **inside, **beside})) == {"a": (2, 3)}


def test_two_folders_are_refused(tmp_path: Path) -> None:
    files = {"one/config.json": json.dumps(CONFIG).encode(), "two/model.safetensors": weights("a")}
    assert code(pack(tmp_path / "model.zip", files)) == "unknown_entry"


def test_shards_are_admitted_with_their_index(tmp_path: Path) -> None:
    assert admit(forged(tmp_path, CONFIG, sharded({"a": ONE, "b.c": TWO}))) == {"a": (2, 3), "b.c": (2, 3)}


def test_compressed_entries_are_admitted(tmp_path: Path) -> None:
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights("a")}
    assert admit(pack(tmp_path / "model.zip", files, zipfile.ZIP_DEFLATED)) == {"a": (2, 3)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model.bin", "pickled_weights"),
        ("training_args.bin", "pickled_weights"),
        ("optimizer.pt", "pickled_weights"),
        ("weights.pkl", "pickled_weights"),
        ("modeling_bert.py", "code_in_folder"),
        ("kernel.so", "code_in_folder"),
        ("adapter_model.safetensors", "unknown_entry"),
        ("adapter_config.json", "unknown_entry"),
        ("model/config.json", "unknown_entry"),
        ("model-1.safetensors", "unknown_entry"),
        ("../config.json", "unsafe_entry"),
        ("/etc/passwd", "unsafe_entry"),
        ("folder/model.py", "code_in_folder"),
    ],
)
def test_any_other_file_is_refused_by_its_name(name: str, expected: str, tmp_path: Path) -> None:
    path = forged(tmp_path, CONFIG, {"model.safetensors": weights("a"), name: b"\x80\x04."})
    assert code(path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "missing_entry"),
        ({ONE: weights("a"), TWO: weights("b")}, "missing_entry"),
        ({"model.safetensors": weights("a"), ONE: weights("b")}, "shards_differ"),
        (sharded({"a": ONE, "b.c": "../" + TWO}), "shards_differ"),
        (sharded({"a": ONE, "b.c": "/etc/passwd"}), "shards_differ"),
        (sharded({"a": ONE, "b.c": "model-00003-of-00002.safetensors"}), "shards_differ"),
        (sharded({"a": ONE, "b.c": ONE}), "shards_differ"),
        (sharded({"a": ONE, "b.c": 7}), "malformed"),
        (sharded({"a": ONE}), "shards_differ"),
        (sharded({"a": ONE, "b.c": TWO, "d": TWO}), "shards_differ"),
        (sharded({"a": ONE, "b.c": TWO}, second=weights("b.c", "a")), "shards_differ"),
        (sharded({"a": ONE, "b.c": TWO}, second=b"\x80\x04pickled and long enough"), "truncated_file"),
        (sharded({"a": ONE, "b.c": TWO}, second=weights("b.c")[:-1]), "payload_size"),
        ({"model.safetensors": weights("a"), INDEX: b"[]"}, "malformed"),
        (
            {"model.safetensors": weights("a"), INDEX: b'{"weight_map": {"a": "' + ONE.encode() + b'"}}'},
            "shards_differ",
        ),
        ({"model.safetensors": weights("a", "__import__('os')")}, "hostile_name"),
        ({"model.safetensors": weights("a..b")}, "hostile_name"),
        ({"model.safetensors": weights("a" * 201)}, "hostile_name"),
        ({"model.safetensors": b""}, "truncated_file"),
    ],
)
def test_weights_that_are_not_whole_are_refused(files: Entries, expected: str, tmp_path: Path) -> None:
    assert code(forged(tmp_path, CONFIG, files)) == expected


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    assert code(pack(tmp_path / "model.zip", {"model.safetensors": weights("a")})) == "missing_entry"


def test_a_folder_of_very_many_files_is_refused(tmp_path: Path) -> None:
    shards = {f"model-{place:05}-of-02000.safetensors": b"" for place in range(2000)}
    assert code(forged(tmp_path, CONFIG, shards)) == "too_many_entries"


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": bytes(64 << 20)}
    assert code(pack(tmp_path / "model.zip", files, zipfile.ZIP_DEFLATED)) == "zip_bomb"
