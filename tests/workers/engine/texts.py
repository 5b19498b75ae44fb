"""Texts, tokenizers trained on them, and models' folders with these."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.workers.engine.hf_folders import SMALL, entries_of, model_of
from tests.workers.engine.hostile import Entries, pack

_WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "ten", "rats", "that", "ate", "oats")


def sentences(count: int, seed: int = 0) -> list[str]:
    """Lines of four to nine words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(_WORDS, generator.integers(4, 10))) for _ in range(count)]


def written(path: Path, count: int, seed: int = 0) -> Path:
    """A file of such lines."""
    path.write_text("\n".join(sentences(count, seed)) + "\n")
    return path


@lru_cache
def byte_pairs() -> str:
    """The tokenizer.json of a language model: byte pairs of words, 40 ids."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        sentences(50), trainers.BpeTrainer(vocab_size=40, special_tokens=["<unk>", "<pad>"])
    )
    return str(tokenizer.to_str())


@lru_cache
def word_pieces() -> str:
    """The tokenizer.json of an encoder: pieces of words between [CLS] and [SEP], 40 ids."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        sentences(50), trainers.WordPieceTrainer(vocab_size=40, special_tokens=special)
    )
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return str(tokenizer.to_str())


def changed(tokenizer: str, **changes: Any) -> bytes:
    """A tokenizer.json with other components."""
    return json.dumps(json.loads(tokenizer) | changes).encode()


def entries(architecture: str, model_type: str, folder: Path, tokenizer: bytes | str) -> Entries:
    """The files of a small model's folder with a tokenizer in it."""
    files = entries_of(model_of(architecture, SMALL[model_type]), folder / "saved")
    data = tokenizer.encode() if isinstance(tokenizer, str) else tokenizer
    pad = {"pad_token": "<pad>" if b"<pad>" in data else "[PAD]", "model_max_length": 1e30}
    return files | {"tokenizer.json": data, "tokenizer_config.json": json.dumps(pad).encode()}


def folder_of(architecture: str, model_type: str, folder: Path, tokenizer: bytes | str) -> Path:
    """These, packed."""
    return pack(folder / "model.zip", entries(architecture, model_type, folder, tokenizer))
