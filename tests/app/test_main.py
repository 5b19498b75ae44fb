"""The process as a whole."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from app.contract.spec import (
    DEFAULT_METHODS,
    Calibration,
    Finetune,
    Method,
    Quantization,
    Ranks,
    Task,
    Weighting,
)
from app.db.migrate import upgrade
from app.main import create_app
from app.settings import Settings
from tests.app.tenants import Tenant
from tests.processes import Broker

RANKS = get_args(get_args(Ranks)[0])
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "workers")


def test_importing_the_api_touches_nothing_and_brings_no_torch(tmp_path: Path) -> None:
    code = f"import sys, app.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_the_first_start_makes_a_key_that_works(tmp_path: Path, sqlite_url: str) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data", database_url=sqlite_url, broker_url="memory://"))
    with TestClient(app) as client:
        secret = (tmp_path / "data" / "bootstrap.key").read_text().strip()
        assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_ready_with_everything_in_place(anybody: TestClient) -> None:
    assert anybody.get("/livez").json() == {"status": "ok"}
    expected = {"status": "ok", "database": "ok", "storage": "ok", "broker": "ok"}
    assert anybody.get("/readyz").json() == expected


def test_without_the_broker_degraded_but_ready(tmp_path: Path, broker: Broker) -> None:
    settings = Settings(data_dir=tmp_path, broker_url=broker.url)
    upgrade(settings.resolved_database_url)
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").json()["status"] == "ok"
        broker.kill()
        response = client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert response.json()["broker"] == "down"
        broker.start()


def test_without_a_database_not_ready_but_alive(tmp_path: Path, broker: Broker) -> None:
    settings = Settings(data_dir=tmp_path, broker_url=broker.url)
    upgrade(settings.resolved_database_url)
    app = create_app(settings)
    with TestClient(app) as client:
        app.state.engine.dispose()
        for file in tmp_path.glob("rankfold.db*"):
            file.unlink()
        (tmp_path / "rankfold.db").mkdir()
        response = client.get("/readyz")
        assert (response.status_code, response.json()["database"]) == (503, "down")
        assert client.get("/livez").status_code == 200
        refused = client.get("/v1/jobs", headers={"Authorization": "Bearer x"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


def test_without_storage_not_ready(
    anybody: TestClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_key: str) -> int:
        raise PermissionError("/srv/secret")

    monkeypatch.setattr(app.state.blobs, "size", fail)
    response = anybody.get("/readyz")
    assert (response.status_code, response.json()["storage"]) == (503, "down")


def test_metrics_count_requests_by_route(tenant: Tenant) -> None:
    tenant.client.get("/v1/models/mdl_unknown")
    text = tenant.client.get("/metrics").text
    assert 'handler="/v1/models/{id}"' in text
    assert "mdl_unknown" not in text


def test_the_documentation_needs_no_other_server(tenant: Tenant) -> None:
    page = tenant.client.get("/docs")
    assert "https://" not in page.text
    assert "'unsafe-inline'" in page.headers["content-security-policy"]
    assert tenant.client.get("/docs/static/swagger-ui-bundle.js").status_code == 200
    assert "unsafe" not in tenant.client.get("/v1/jobs").headers["content-security-policy"]


def test_what_can_be_asked_for_comes_with_its_schemas(tenant: Tenant) -> None:
    body = tenant.client.get("/v1/methods").json()
    assert {method["name"] for method in body["methods"]} == set(Method)
    assert {method["name"] for method in body["methods"] if method["default"]} == set(DEFAULT_METHODS)
    parameters = {choice["name"]: choice["parameters"]["properties"] for choice in body["ranks"]}
    assert set(parameters) == {kind.model_fields["selection"].annotation.__args__[0] for kind in RANKS}
    assert parameters["energy"]["energy"]["maximum"] == 1.0
    assert all("Blind to" in choice["description"] for choice in body["ranks"])
    assert set(body["calibration"]["properties"]) == set(Calibration.model_fields)
    assert set(body["finetune"]["properties"]) == set(Finetune.model_fields)
    assert [form["name"] for form in body["quantizations"]] == list(Quantization)
    assert [weighting["name"] for weighting in body["weightings"]] == list(Weighting)
    assert [metrics["task"] for metrics in body["metrics"]] == list(Task)
    assert (body["outputs"], body["devices"]) == (["pt2", "onnx", "huggingface"], ["auto", "cpu", "cuda"])


@pytest.mark.parametrize(
    ("method", "good", "bad"),
    [
        ("svd", [8, [8]], [0, [8, 8]]),
        ("tucker", [8, [8, 8], [2, 8, 8]], [[8], [1, 2, 3, 4]]),
        ("full_tucker", [8, [8, 8, 3, 3]], [[8, 8]]),
    ],
)
def test_the_schema_of_a_methods_rank_tells_ranks_from_what_is_none(
    tenant: Tenant, method: str, good: list[object], bad: list[object]
) -> None:
    methods = {each["name"]: each for each in tenant.client.get("/v1/methods").json()["methods"]}
    validator = Draft202012Validator(methods[method]["parameters"])
    assert all(validator.is_valid({"rank": rank}) for rank in good)
    assert not any(validator.is_valid({"rank": rank}) for rank in bad)
