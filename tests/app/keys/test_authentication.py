"""Who gets in, and what a stranger may see: nothing."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.contract.problem import Problem
from app.db.session import writing
from app.keys import service
from app.main import create_app
from app.queue.lifecycle import Ending, Made
from app.settings import Settings
from tests.app.tenants import IMAGES, Tenant

METHODS = ("get", "post", "delete")


def _routes() -> Iterator[tuple[str, str]]:
    for path, item in create_app(Settings()).openapi()["paths"].items():
        for method in METHODS:
            if method in item and path not in ("/livez", "/readyz"):
                yield method, path


ROUTES = sorted(_routes())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
        {"Cookie": "rankfold_session=wrong"},
    ],
)
def test_without_a_valid_key_every_route_is_401(anybody: TestClient, headers: dict[str, str]) -> None:
    for method, path in [
        *ROUTES,
        ("get", "/metrics"),
        ("get", "/docs"),
        ("get", "/openapi.json"),
        ("get", "/x"),
    ]:
        response = anybody.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), path
        assert response.headers["www-authenticate"] == "Bearer"


def test_the_key_must_be_a_bearer_token(anybody: TestClient, tenant: Tenant) -> None:
    accepted = anybody.get("/v1/jobs", headers={"Authorization": f"bearer {tenant.secret}"})
    refused = anybody.get("/v1/jobs", headers={"Authorization": f"Basic {tenant.secret}"})
    assert (accepted.status_code, refused.status_code) == (200, 401)


def test_the_dashboards_cookie_holds_the_key(anybody: TestClient, tenant: Tenant) -> None:
    cookie = {"Cookie": f"rankfold_session={tenant.secret}"}
    assert anybody.get("/v1/jobs", headers=cookie).status_code == 200
    both = cookie | {"Authorization": "Bearer wrong"}
    assert anybody.get("/v1/jobs", headers=both).status_code == 401


def test_a_revoked_key_is_out_at_once(tenant: Tenant) -> None:
    assert tenant.client.get("/v1/jobs").status_code == 200
    with writing(tenant.engine) as connection:
        service.revoke(connection, tenant.key_id)
    assert tenant.client.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_the_probes_are_for_everybody(anybody: TestClient, path: str) -> None:
    assert anybody.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/openapi.json"])
def test_the_inner_pages_open_with_a_key(tenant: Tenant, path: str) -> None:
    assert tenant.client.get(path).status_code == 200


@pytest.fixture
def property_(tenant: Tenant) -> dict[str, str]:
    """One of everything, by the path that holds it."""
    job = tenant.job()
    tenant.finish(job, Ending.succeeded({"secret": 1}, [Made("model.pt2", "pt2", 0, 4, "0" * 64)]))
    return {"models": tenant.model(), "datasets": tenant.dataset(IMAGES), "jobs": job}


def _address(path: str, property_: dict[str, str]) -> str:
    noun = path.split("/")[2]
    return path.replace("{id}", property_.get(noun, "")).replace("{name}", "model.pt2")


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "{id}" in route[1]])
def test_what_belongs_to_another_is_404(
    tenant: Tenant, stranger: Tenant, property_: dict[str, str], method: str, path: str
) -> None:
    response = stranger.client.request(method, _address(path, property_))
    assert response.status_code == 404
    unknown = stranger.client.request(method, _address(path, dict.fromkeys(property_, "x")))
    assert Problem.model_validate(unknown.json()) == Problem.model_validate(response.json())
    assert tenant.client.get(_address(f"/v1/{path.split('/')[2]}/{{id}}", property_)).status_code == 200


@pytest.mark.parametrize("noun", ["models", "datasets", "jobs"])
def test_lists_hold_only_ones_own(
    tenant: Tenant, stranger: Tenant, property_: dict[str, str], noun: str
) -> None:
    def listed(who: Tenant) -> list[Any]:
        return [item["id"] for item in who.client.get(f"/v1/{noun}").json()["items"]]

    assert listed(stranger) == []
    assert property_[noun] in listed(tenant)


def test_a_job_on_anothers_uploads_is_404_and_names_the_field(
    stranger: Tenant, property_: dict[str, str]
) -> None:
    model = stranger.model()
    for field, body in {
        "model": {"model": property_["models"]},
        "data.train": {"model": model, "data": {"train": property_["datasets"]}},
        "data.test": {"model": model, "data": {"test": property_["datasets"]}},
    }.items():
        response = stranger.client.post("/v1/jobs", json=body)
        assert (response.status_code, response.json()["field"]) == (404, field)
    assert stranger.client.get("/v1/jobs").json()["items"] == []
