"""Raw text in: rows by the model's own tokenizer, in the metric and in the fidelity."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from tests.workers.engine import texts
from tests.workers.engine.hf_folders import SMALL, model_of
from tests.workers.engine.texts import folder_of, sentences, written
from tests.workers.stages.jobs import Finished, run_job
from workers.engine.errors import EngineError
from workers.engine.formats.hf import opened
from workers.stages import inspect

LENGTH = 16


def files(folder: Path, train: int = 60, test: int = 40) -> dict[str, Path]:
    return {
        "train": written(folder / "train.txt", train, 1),
        "test": written(folder / "test.txt", test, 2),
    }


def job(folder: Path, model: Path, data: dict[str, Path], **spec: Any) -> Finished:
    target = {"of": "parameters", "keep": 0.6}
    body = {"target": target, "outputs": ["huggingface"], "data": {"length": LENGTH}, **spec}
    return run_job(folder / "job", model, files=data, **body)


def folder_in(finished: Finished) -> Any:
    """The candidate as its user opens it."""
    return opened.model_in(finished.workspace / "artifacts" / "candidate-0-factors.zip")


def test_a_language_model_is_judged_by_the_perplexity_of_raw_text(tmp_path: Path) -> None:
    model = folder_of("GPT2LMHeadModel", "gpt2", tmp_path, texts.byte_pairs())
    data = files(tmp_path)
    finished = job(tmp_path, model, data, task="language-modeling")
    tokens = (
        Tokenizer.from_str(texts.byte_pairs()).encode(data["test"].read_text(), add_special_tokens=False).ids
    )
    rows = (len(tokens) - 1) // LENGTH
    windows = torch.tensor(tokens[: rows * LENGTH + 1]).unfold(0, LENGTH + 1, LENGTH)
    with torch.inference_mode():
        logits = folder_in(finished)(input_ids=windows[:, :-1]).logits
    loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    metric = finished.candidate.metric
    assert metric is not None
    assert (metric.name, finished.report.splits["test"]) == ("perplexity", rows)
    assert metric.value == pytest.approx(math.exp(float(loss)), rel=1e-4)
    assert ("tokenised", None) in finished.notices


def test_a_sentence_encoder_is_judged_by_the_cosine_of_real_positions(tmp_path: Path) -> None:
    model = folder_of("BertModel", "bert", tmp_path, texts.word_pieces())
    finished = job(tmp_path, model, files(tmp_path), task="none")
    tokenizer = Tokenizer.from_str(texts.word_pieces())
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(pad_id=0)
    found = tokenizer.encode_batch(sentences(40, 2))
    inputs = {
        "input_ids": torch.tensor([each.ids for each in found]),
        "attention_mask": (mask := torch.tensor([each.attention_mask for each in found])),
    }
    assert 0.3 < float(mask.float().mean()) < 0.95  # there is padding
    original = model_of("BertModel", SMALL["bert"])
    with torch.inference_mode():
        ours, theirs = (
            each(**inputs).last_hidden_state[mask == 1] for each in (folder_in(finished), original)
        )
    cosine = F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)
    assert finished.candidate.fidelity.cosine == pytest.approx(float(cosine), rel=1e-4)
    assert finished.report.splits["test"] == 40


def test_a_text_of_too_few_tokens_is_refused(tmp_path: Path) -> None:
    model = folder_of("GPT2LMHeadModel", "gpt2", tmp_path, texts.byte_pairs())
    data = files(tmp_path, test=1)
    with pytest.raises(EngineError) as refused:
        job(tmp_path, model, data, task="language-modeling")
    assert (refused.value.code, refused.value.field) == ("dataset_too_small", "data.test")


def test_an_uploaded_folder_tells_what_its_tokenizer_makes(tmp_path: Path) -> None:
    model = folder_of("GPT2LMHeadModel", "gpt2", tmp_path, texts.byte_pairs())
    folder = inspect.model(model, "zip").folder
    assert folder is not None
    assert folder.architecture == "GPT2LMHeadModel"
    assert folder.tokenizer is not None
    assert (folder.tokenizer.ids, folder.tokenizer.longest) == (40, SMALL["gpt2"]["n_positions"])
    assert folder.tokenizer.tasks == ["language-modeling", "none"]


def test_uploaded_text_is_described_by_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one\n\n  \ntwo\r\nthree")
    summary = inspect.dataset(path, "txt")
    assert (summary.rows, [(array.name, array.dtype) for array in summary.arrays]) == (
        3,
        [("text", "string")],
    )


@pytest.mark.parametrize(
    ("data", "code"), [(b"\xff\xfe\x00", "not_text"), (b"a\0b\n", "not_text"), (b" \n\n", "no_rows")]
)
def test_what_is_no_text_is_refused(data: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(EngineError) as refused:
        inspect.dataset(path, "txt")
    assert refused.value.code == code
