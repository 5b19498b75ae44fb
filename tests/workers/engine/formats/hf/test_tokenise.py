"""Texts as tokens on disk: what a folder's own tokenizer makes of them, in time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tokenizers import Tokenizer

from tests.workers.engine import texts
from tests.workers.engine.hf_folders import forged
from workers.engine.errors import EngineError, Rejected
from workers.engine.formats import text
from workers.engine.formats.hf import tokenise


def folder(path: Path, tokenizer: str | bytes | None) -> Path:
    """A folder whose weights do not matter."""
    data = tokenizer.encode() if isinstance(tokenizer, str) else tokenizer
    files = {} if data is None else {"tokenizer.json": data}
    weights = {"model.safetensors": save({"a": torch.zeros(1)})}
    return forged(path, {"model_type": "bert", "architectures": ["BertModel"]}, {**weights, **files})


def written(path: Path, content: str) -> Path:
    file = path / "text.txt"
    file.write_text(content)
    return file


def test_a_stream_is_all_tokens_of_a_text(tmp_path: Path) -> None:
    lines = texts.sentences(30)
    file, ids = written(tmp_path, "\n".join(lines)), tmp_path / "ids"
    count = tokenise.write_stream(folder(tmp_path, texts.byte_pairs()), file, ids)
    expected = Tokenizer.from_str(texts.byte_pairs()).encode(file.read_text(), add_special_tokens=False).ids
    assert np.fromfile(ids, np.int32).tolist() == expected
    assert count == len(expected)


def test_every_line_has_its_own_tokens_and_no_more_than_asked_for(tmp_path: Path) -> None:
    file = written(tmp_path, "the cat\n\n   \nthe cat sat on the mat and ate ten rats\n")
    ids, lengths = tmp_path / "ids", tmp_path / "lengths"
    cut = tokenise.write_lines(folder(tmp_path, texts.word_pieces()), file, ids, lengths, 6)
    assert (cut, np.fromfile(lengths, np.int32).tolist()) == (1, [4, 6])
    tokenizer = Tokenizer.from_str(texts.word_pieces())
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    rows = np.split(np.fromfile(ids, np.int32), [4])
    assert [(row[0], row[-1]) for row in rows] == [(start, end)] * 2


def test_windows_are_followed_by_their_targets(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    np.arange(10, dtype=np.int32).tofile(ids)
    inputs, target = text.windows(ids, 10, 4)
    rows = np.array([1, 0])
    assert inputs[rows].tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]
    assert target[rows].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert len(text.windows(ids, 9, 4)[1]) == 2
    assert len(text.windows(ids, 8, 4)[1]) == 1  # the eighth has no next one


def test_rows_of_all_lengths_are_padded(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    np.array([5, 6, 7, 8, 9], np.int32).tofile(ids)
    rows, mask = text.padded(ids, np.array([3, 0, 2], np.int32), 1)
    order = np.array([2, 0, 1, 2])
    assert rows[order].tolist() == [[8, 9, 1], [5, 6, 7], [1, 1, 1], [8, 9, 1]]
    assert mask[order].tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0]]


def test_lines_longer_than_a_part_are_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PART", 8)
    file = written(tmp_path, "a short\nand a very long line\nx")
    assert list(text.lines(file)) == ["a short", "and a ve", "x"]
    assert "".join(text.parts(file)) == file.read_text()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as refused:
        tokenise.write_stream(folder(tmp_path, None), written(tmp_path, "a"), tmp_path / "ids")
    assert refused.value.code == "no_tokenizer"


def test_a_tokenizer_that_the_library_does_not_take_is_refused(tmp_path: Path) -> None:
    model = json.loads(texts.byte_pairs())["model"] | {"merges": [["not", "there"]]}
    with pytest.raises(Rejected) as refused:
        tokenise.try_out(folder(tmp_path, texts.changed(texts.byte_pairs(), model=model)))
    assert (refused.value.code, refused.value.field) == ("tokenizer_unusable", "tokenizer.json")


def test_a_slow_tokenizer_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenise, "_TRIED_SECONDS", 0.0)
    monkeypatch.setattr(tokenise, "_SECONDS", -1.0)
    path = folder(tmp_path, texts.byte_pairs())
    with pytest.raises(Rejected) as rejected:
        tokenise.try_out(path)
    assert (rejected.value.code, rejected.value.field) == ("tokenizer_too_slow", "tokenizer.json")
    with pytest.raises(EngineError) as stopped:
        tokenise.write_stream(path, written(tmp_path, "a"), tmp_path / "ids")
    assert (stopped.value.code, stopped.value.field) == ("tokenizer_too_slow", "data")
