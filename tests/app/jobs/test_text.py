"""Which jobs take raw text."""

from typing import Any

import pytest

from app.contract.spec import JobSpec, Task
from app.contract.summary import DatasetSummary, ModelSummary
from app.errors import Unprocessable
from app.jobs.validation import resolve
from tests.app.tenants import IMAGES, MODEL_SUMMARY

TEXT = {"rows": 40, "arrays": [{"name": "text", "dtype": "string", "shape": [40]}]}
TOKENS = [
    {"name": name, "dtype": "int64", "shape": ["n", "t"], "minimum": 0, "maximum": 99}
    for name in ("input_ids", "attention_mask")
]
PREDICTS, ENCODES = ["language-modeling", "none"], ["none"]


def folder(tasks: list[str], ids: int = 100, longest: int | None = 64) -> dict[str, Any]:
    return {"architecture": "A", "tokenizer": {"ids": ids, "longest": longest, "tasks": tasks}}


def resolved(
    known: dict[str, Any] | None, summary: dict[str, Any] = TEXT, role: str = "train", **body: Any
) -> JobSpec:
    model = ModelSummary.model_validate({**MODEL_SUMMARY, "inputs": TOKENS, "folder": known})
    spec = JobSpec.model_validate({"model": "mdl_" + "0" * 32, **body})
    return resolve(spec, model, {role: DatasetSummary.model_validate(summary)})


def refusal(*arguments: Any, **body: Any) -> tuple[str, str | None]:
    with pytest.raises(Unprocessable) as caught:
        resolved(*arguments, **body)
    assert caught.value.problem.detail.endswith(".")
    assert caught.value.problem.hint
    return caught.value.problem.code, caught.value.problem.field


def test_a_model_that_predicts_tokens_is_judged_by_it() -> None:
    assert resolved(folder(PREDICTS)).task is Task.LANGUAGE_MODELING
    assert resolved(folder(PREDICTS), task="none").task is Task.NONE
    assert resolved(folder(ENCODES)).task is Task.NONE


@pytest.mark.parametrize("known", [None, {"architecture": "A"}])
def test_a_model_without_a_tokenizer_takes_no_text(known: dict[str, Any] | None) -> None:
    assert refusal(known) == ("no_tokenizer", "data.train")
    assert refusal(known, role="test") == ("no_tokenizer", "data.test")


def test_a_tokenizer_with_more_ids_than_the_embedding_is_refused() -> None:
    assert refusal(folder(PREDICTS, ids=101)) == ("tokenizer_differs", "data.train")


@pytest.mark.parametrize("task", ["classification", "regression", "language-modeling"])
def test_a_task_that_text_has_no_targets_for_is_refused(task: str) -> None:
    assert refusal(folder(ENCODES), task=task) == ("wrong_task", "task")


def test_rows_are_no_longer_than_the_model_takes() -> None:
    assert refusal(folder(PREDICTS), data={"length": 65}) == ("too_long", "data.length")


def test_a_length_without_text_is_refused() -> None:
    arrays = {"rows": 40, "arrays": [IMAGES]}
    assert refusal(None, arrays, data={"length": 8}) == ("length_ignored", "data.length")


def test_lines_are_rows_for_encoders_alone() -> None:
    few = {"rows": 3, "arrays": [{"name": "text", "dtype": "string", "shape": [3]}]}
    assert refusal(folder(ENCODES), few) == ("dataset_too_small", "data.train")
    assert resolved(folder(PREDICTS), few).task is Task.LANGUAGE_MODELING
