"""The contract is what was committed."""

from typing import Any

import jsonschema
import pytest

from app.contract.spec import JobSpec
from app.jobs.examples import BODIES
from tests.golden import FOLDER, GOLDEN, text


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_file_is_current(name: str) -> None:
    assert (FOLDER / name).read_text() == text(name), "run `make openapi` and review the difference"


def _operations() -> list[tuple[str, dict[str, Any]]]:
    paths = GOLDEN["openapi.json"]()["paths"]
    return [
        (f"{method} {path}", operation) for path, item in paths.items() for method, operation in item.items()
    ]


@pytest.mark.parametrize(("name", "operation"), [pytest.param(*it, id=it[0]) for it in _operations()])
def test_every_operation_is_described_with_its_problems(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    if "/v1/" not in name:
        return
    responses = operation["responses"]
    assert {"401", "500", "503"} <= set(responses)
    for status, response in responses.items():
        if int(status) >= 400:
            assert list(response["content"]) == ["application/problem+json"], status


def test_every_reference_leads_somewhere() -> None:
    document = GOLDEN["openapi.json"]()
    schemas = document["components"]["schemas"]
    references = [part.split('"')[0] for part in text("openapi.json").split('"#/components/schemas/')[1:]]
    assert set(references) <= set(schemas)
    assert "HTTPValidationError" not in references


@pytest.mark.parametrize("name", BODIES)
def test_the_examples_are_valid_requests(name: str) -> None:
    assert JobSpec.model_validate(BODIES[name]["value"]).model.startswith("mdl_")


def test_the_reports_schema_is_a_schema() -> None:
    schema = GOLDEN["report.schema.json"]()
    jsonschema.validators.validator_for(schema).check_schema(schema)
    assert not jsonschema.validators.validator_for(schema)(schema).is_valid({})
