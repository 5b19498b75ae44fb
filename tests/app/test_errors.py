"""Whatever goes wrong is a problem document, and says no more than it should."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from app.contract.problem import Problem
from tests.app.tenants import Tenant

MODEL = "mdl_" + "0" * 32


def _problem(response: Any, status: int) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.status == status
    return problem


def test_an_unknown_address_is_404(tenant: Tenant) -> None:
    assert _problem(tenant.client.get("/v1/nothing"), 404).code == "not_found"


def test_a_method_that_is_not_taken_is_405(tenant: Tenant) -> None:
    response = tenant.client.put("/v1/methods")
    assert _problem(response, 405).code == "method_not_allowed"
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("address", "methods"), [("/v1/models", "GET, POST"), (f"/v1/models/{MODEL}", "DELETE, GET")]
)
def test_all_methods_of_an_address_are_told(tenant: Tenant, address: str, methods: str) -> None:
    response = tenant.client.patch(address)
    _problem(response, 405)
    assert response.headers["allow"] == methods


def test_a_selection_of_ranks_has_to_be_named(tenant: Tenant) -> None:
    problem = _problem(tenant.client.post("/v1/jobs", json={"model": MODEL, "ranks": {}}), 422)
    assert (problem.code, problem.field) == ("invalid_request", "ranks")


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"target": {"keep": 0}}, "target.keep", "greater than 0"),
        ({"target": {"keep": 2}}, "target.keep", "less than or equal to 1"),
        ({"target": {"keep": "half"}}, "target.keep", "valid number"),
        ({"target": {"keep": [0.5, 2]}}, "target.keep.1", "less than or equal to 1"),
        ({"target": {"keep": []}}, "target.keep", "at least 1 item"),
        ({"target": {"of": "energy"}}, "target.of", "'macs', 'parameters' or 'latency'"),
        ({"tarjet": {}}, "tarjet", "not permitted"),
        ({"ranks": {"selection": "energy", "energy": 2}}, "ranks.energy", "less than or equal to 1"),
        ({"ranks": {"selection": "magic"}}, "ranks", "magic"),
        ({"layers": [{"match": "fc"}]}, "layers.0", "a method, a rank, or both"),
        ({"layers": [{"match": "fc", "rank": 0}]}, "layers.0.rank", "greater than or equal to 1"),
        ({"layers": [{"match": "fc", "rank": [1] * 9}]}, "layers.0.rank", "at most 8 items"),
        ({"layers": [{"rank": 3}]}, "layers.0.match", "required"),
        ({"model": None}, "model", "string"),
        ({"seed": 1.5}, "seed", "integer"),
    ],
)
def test_a_wrong_field_is_422_with_its_path(tenant: Tenant, body: Any, field: str, says: str) -> None:
    problem = _problem(tenant.client.post("/v1/jobs", json={"model": MODEL} | body), 422)
    assert (problem.code, problem.field) == ("invalid_request", field)
    assert says in problem.detail


def test_several_wrong_fields_are_all_named(tenant: Tenant) -> None:
    problem = _problem(tenant.client.post("/v1/jobs", json={"seed": -1, "device": "tpu"}), 422)
    assert all(f"{name}:" in problem.detail for name in ("model", "seed", "device"))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_clear_problem(tenant: Tenant, content: bytes) -> None:
    for kind in ("application/json", "text/plain"):
        response = tenant.client.post("/v1/jobs", content=content, headers={"content-type": kind})
        assert _problem(response, 422).code in ("invalid_json", "invalid_request")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_that_is_too_large_is_413(tenant: Tenant, streamed: bool) -> None:
    chunks = (b" " * 65536 for _ in range(17))
    content = chunks if streamed else b"".join(chunks)
    assert _problem(tenant.client.post("/v1/jobs", content=content), 413).code == "body_too_large"


def test_an_unforeseen_error_is_500_without_its_text(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ValueError("/srv/secret/path")

    monkeypatch.setattr("app.jobs.service.fetch_page", fail)
    response = tenant.client.get("/v1/jobs")
    assert _problem(response, 500).code == "internal_error"
    assert len(response.headers["x-request-id"]) == 32
    assert "secret" not in response.text


def test_a_lost_database_is_503_with_retry_after(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("gone"))

    monkeypatch.setattr("app.jobs.service.fetch_page", fail)
    response = tenant.client.get("/v1/jobs")
    assert _problem(response, 503).code == "database_unavailable"
    assert response.headers["retry-after"] == "2"
    assert "secret" not in response.text


def test_a_database_lost_before_the_key_was_checked_is_503(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr("app.keys.service.verify", fail)
    assert _problem(tenant.client.get("/v1/jobs"), 503).code == "database_unavailable"


def test_a_full_disk_is_507(tenant: Tenant, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "/srv/secret")

    monkeypatch.setattr("app.uploads.spool.Spool.write", fail)
    response = tenant.client.post("/v1/models?filename=m.pt2", content=b"PK\x03\x04" + bytes(60))
    assert _problem(response, 507).code == "storage_full"
    assert list(app.state.settings.spool_dir.iterdir()) == []


def test_problems_carry_the_request_id_and_the_security_headers(anybody: TestClient, tenant: Tenant) -> None:
    for response in (anybody.get("/v1/jobs"), tenant.client.get("/v1/nothing")):
        assert len(response.headers["x-request-id"]) == 32
        assert response.headers["x-content-type-options"] == "nosniff"
