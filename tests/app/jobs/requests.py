"""Requests as validation sees them: resolved against the summaries of a model and its data."""

from typing import Any

import pytest

from app.contract.spec import JobSpec
from app.contract.summary import DatasetSummary, ModelSummary
from app.db.tables import Document
from app.errors import Unprocessable
from app.jobs.validation import resolve
from tests.app.tenants import MODEL_SUMMARY

MODEL = "mdl_" + "0" * 32


def array(name: str, dtype: str, *shape: int | str, **more: Any) -> Document:
    """An array as a summary tells of it."""
    return {"name": name, "dtype": dtype, "shape": list(shape)} | more


def resolved(
    arrays: list[Document] | None = None,
    model: Document | None = None,
    role: str = "train",
    rows: int = 40,
    **body: Any,
) -> JobSpec:
    """What a request comes to: for the tests' model, changed in part, and a data set with these arrays."""
    spec = JobSpec.model_validate({"model": MODEL} | body)
    data = {}
    if arrays is not None:
        data[role] = DatasetSummary.model_validate({"rows": rows, "arrays": arrays})
    return resolve(spec, ModelSummary.model_validate(MODEL_SUMMARY | (model or {})), data)


def refused(*arguments: Any, **named: Any) -> tuple[str, str | None]:
    """The code and field of a refusal, which says what to do."""
    with pytest.raises(Unprocessable) as caught:
        resolved(*arguments, **named)
    problem = caught.value.problem
    assert problem.detail.endswith(".")
    assert problem.hint
    return problem.code, problem.field
