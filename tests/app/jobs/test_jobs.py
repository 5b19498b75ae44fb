"""Jobs over HTTP, on both databases."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from app.contract.problem import Notice, Problem
from app.db.session import reading
from app.db.tables import Job
from app.jobs import repository
from app.jobs.schemas import JobView
from app.queue import lifecycle
from app.queue.lifecycle import Ending, Made, Pulse
from tests.app.tenants import IMAGES, LABELS, Tenant

UNKNOWN = "mdl_" + "0" * 32


def _stored(tenant: Tenant, job_id: str) -> Any:
    with reading(tenant.engine) as connection:
        return connection.execute(sa.select(Job.__table__).where(Job.id == job_id)).one()


def test_a_model_is_all_that_a_job_needs(tenant: Tenant) -> None:
    model = tenant.model()
    response = tenant.client.post("/v1/jobs", json={"model": model})
    job = JobView.model_validate(response.json())
    assert response.status_code == 202
    assert response.headers["location"] == job.links.self == f"/v1/jobs/{job.id}"
    assert response.headers["retry-after"] == "2"
    assert (job.model, job.status, job.attempt) == (model, "queued", 0)
    assert job.spec.task == "none"


def test_the_stored_request_has_its_defaults_and_its_task(tenant: Tenant) -> None:
    stored = _stored(tenant, tenant.job(data={"train": tenant.dataset(IMAGES, LABELS)})).spec
    assert stored["task"] == "classification"
    assert stored["target"] == {"of": "macs", "keep": 0.5, "max_drop": None, "min_agreement": None}


@pytest.mark.parametrize(("device", "queue"), [("auto", "cpu"), ("cpu", "cpu"), ("cuda", "gpu")])
def test_the_device_decides_the_queue(tenant: Tenant, device: str, queue: str) -> None:
    assert _stored(tenant, tenant.job(device=device)).queue == queue


@pytest.mark.parametrize(
    ("state", "code"), [("upload", "model_not_ready"), ("rejected_model", "model_rejected")]
)
def test_a_model_that_is_not_ready_is_409(tenant: Tenant, state: str, code: str) -> None:
    response = tenant.client.post("/v1/jobs", json={"model": getattr(tenant, state)()})
    problem = response.json()
    assert (response.status_code, problem["code"], problem["field"]) == (409, code, "model")
    assert tenant.client.get("/v1/jobs").json()["items"] == []


def test_a_data_set_that_is_not_ready_is_409(tenant: Tenant) -> None:
    data = {"train": tenant.upload("datasets", "d.npz")}
    problem = tenant.client.post("/v1/jobs", json={"model": tenant.model(), "data": data}).json()
    assert (problem["code"], problem["field"]) == ("dataset_not_ready", "data.train")


@pytest.mark.parametrize("named", ["dst_" + "0" * 32, "x", "", "a\x00b", "../.."])
def test_an_unknown_upload_is_404_and_names_the_field(tenant: Tenant, named: str) -> None:
    unknown_model = tenant.client.post("/v1/jobs", json={"model": UNKNOWN})
    assert (unknown_model.status_code, unknown_model.json()["field"]) == (404, "model")
    body = {"model": tenant.model(), "data": {"test": named}}
    unknown_data = tenant.client.post("/v1/jobs", json=body)
    assert (unknown_data.status_code, unknown_data.json()["field"]) == (404, "data.test")


def test_what_cannot_be_done_is_422_and_leaves_no_job(tenant: Tenant) -> None:
    body = {"model": tenant.model(), "layers": [{"match": "nothing", "method": "svd"}]}
    response = tenant.client.post("/v1/jobs", json=body)
    assert (response.status_code, response.json()["field"]) == (422, "layers.0.match")
    assert tenant.client.get("/v1/jobs").json()["items"] == []


def test_an_int8_form_without_onnx_is_422_and_names_the_field(tenant: Tenant) -> None:
    body = {"model": tenant.model(), "outputs": ["pt2"], "quantize": "dynamic-int8"}
    response = tenant.client.post("/v1/jobs", json=body)
    assert (response.status_code, response.json()["field"]) == (422, "quantize")
    assert tenant.client.get("/v1/jobs").json()["items"] == []


def test_the_same_key_and_body_give_the_same_job(tenant: Tenant) -> None:
    body = {"model": tenant.model(), "seed": 3}
    answers = [
        tenant.client.post("/v1/jobs", content=json.dumps(body, indent=indent), headers={
            "Idempotency-Key": "order-1", "Content-Type": "application/json",
        })
        for indent in (None, 2)
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true"]
    assert len(tenant.client.get("/v1/jobs").json()["items"]) == 1


def test_the_same_key_with_another_body_is_422(tenant: Tenant) -> None:
    model, headers = tenant.model(), {"Idempotency-Key": "order-1"}
    tenant.client.post("/v1/jobs", json={"model": model}, headers=headers)
    response = tenant.client.post("/v1/jobs", json={"model": model, "seed": 1}, headers=headers)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "idempotency_key_reused")
    assert problem["field"] == "Idempotency-Key"


def test_a_refused_request_does_not_use_its_key_up(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "order-1"}
    tenant.client.post("/v1/jobs", json={"model": UNKNOWN}, headers=headers)
    response = tenant.client.post("/v1/jobs", json={"model": tenant.model()}, headers=headers)
    assert response.status_code == 202


def test_anothers_key_is_another_key(tenant: Tenant, stranger: Tenant) -> None:
    headers = {"Idempotency-Key": "order-1"}
    jobs = {
        who.client.post("/v1/jobs", json={"model": who.model()}, headers=headers).json()["id"]
        for who in (tenant, stranger)
    }
    assert len(jobs) == 2


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_of_the_wrong_length_is_422(tenant: Tenant, key: str) -> None:
    response = tenant.client.post("/v1/jobs", json={"model": UNKNOWN}, headers={"Idempotency-Key": key})
    assert (response.status_code, response.json()["field"].lower()) == (422, "idempotency-key")


def test_a_request_that_is_still_being_answered_is_409(tenant: Tenant) -> None:
    model = tenant.model()
    if tenant.engine.dialect.name != "postgresql":
        pytest.skip("on SQLite writers take turns: there is no moment in between")
    with tenant.engine.begin() as first:
        assert repository.try_lock(first, tenant.key_id, "order-1")
        headers = {"Idempotency-Key": "order-1"}
        response = tenant.client.post("/v1/jobs", json={"model": model}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (409, "request_in_flight")
    assert response.headers["retry-after"] == "1"


def test_at_once_with_one_key_there_is_one_job(tenant: Tenant) -> None:
    body, headers = {"model": tenant.model()}, {"Idempotency-Key": "order-1"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: tenant.client.post("/v1/jobs", json=body, headers=headers), range(16))
        )
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert len(tenant.client.get("/v1/jobs").json()["items"]) == 1


def test_polling_costs_nothing_until_something_changes(tenant: Tenant) -> None:
    job = tenant.job()
    first = tenant.client.get(f"/v1/jobs/{job}")
    known = {"If-None-Match": first.headers["etag"]}
    assert tenant.client.get(f"/v1/jobs/{job}", headers=known).status_code == 304
    lease = tenant.claim(job).lease
    running = tenant.client.get(f"/v1/jobs/{job}", headers=known)
    assert (running.status_code, running.json()["status"], running.json()["attempt"]) == (200, "running", 1)
    warning = Notice(code="kept_dense", detail="The layer norm stays dense.", layer="norm")
    lifecycle.heartbeat(tenant.engine, lease, Pulse("plan", 0.25, 12.5, warnings=[warning]))
    body = tenant.client.get(f"/v1/jobs/{job}", headers={"If-None-Match": running.headers["etag"]}).json()
    assert (body["stage"], body["progress"]) == ("plan", {"fraction": 0.25, "eta_seconds": 12.5})
    assert body["warnings"] == [warning.model_dump()]
    assert body["started_at"].endswith("Z")


def test_an_inspection_is_no_job_of_the_users(tenant: Tenant) -> None:
    upload = tenant.upload()
    with reading(tenant.engine) as connection:
        job = connection.execute(sa.select(Job.id).where(Job.upload_id == upload)).scalar_one()
    assert tenant.client.get(f"/v1/jobs/{job}").status_code == 404
    assert tenant.client.post(f"/v1/jobs/{job}/cancel").status_code == 404
    assert tenant.client.get("/v1/jobs").json()["items"] == []


def test_pages_lead_through_all_jobs_once_newest_first(tenant: Tenant) -> None:
    made = [tenant.job() for _ in range(3)]
    first = tenant.client.get("/v1/jobs?limit=2").json()
    second = tenant.client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_a_queued_job_is_cancelled_at_once_and_only_once(tenant: Tenant) -> None:
    job = tenant.job()
    response = tenant.client.post(f"/v1/jobs/{job}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelled")
    again = tenant.client.post(f"/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_finished")


def test_a_running_job_hears_of_its_cancellation(tenant: Tenant) -> None:
    job = tenant.job()
    lease = tenant.claim(job).lease
    assert tenant.client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "running"
    assert lifecycle.heartbeat(tenant.engine, lease, Pulse()) is lifecycle.Verdict.CANCEL


def test_events_are_pages_in_order(tenant: Tenant) -> None:
    job = tenant.job()
    tenant.finish(job, Ending.failed(Problem.of("broken", "It broke.")))
    events = tenant.client.get(f"/v1/jobs/{job}/events").json()
    kinds = [event["kind"] for event in events["items"]]
    assert kinds[:2] == ["queued", "started"]
    assert len(kinds) == 3
    assert events["next_cursor"] is None
    page = tenant.client.get(f"/v1/jobs/{job}/events?limit=1").json()
    rest = tenant.client.get(f"/v1/jobs/{job}/events", params={"cursor": page["next_cursor"]}).json()
    assert [event["kind"] for event in page["items"] + rest["items"]] == kinds
    last = tenant.client.get(f"/v1/jobs/{job}/events", params={"cursor": rest["items"][-1]["id"]}).json()
    assert last == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "٣", "9" * 30])
def test_a_wrong_event_cursor_is_422(tenant: Tenant, cursor: str) -> None:
    response = tenant.client.get(f"/v1/jobs/{tenant.job()}/events", params={"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")


def test_the_report_comes_with_success(tenant: Tenant) -> None:
    job, report = tenant.job(), {"model": "ü", "candidates": []}
    early = tenant.client.get(f"/v1/jobs/{job}/report")
    assert (early.status_code, early.json()["code"]) == (409, "not_finished")
    tenant.finish(job, Ending.succeeded(report))
    response = tenant.client.get(f"/v1/jobs/{job}/report")
    assert response.json() == report
    known = {"If-None-Match": response.headers["etag"]}
    assert tenant.client.get(f"/v1/jobs/{job}/report", headers=known).status_code == 304


def test_the_report_of_a_failed_job_is_its_problem(tenant: Tenant) -> None:
    job = tenant.job()
    tenant.finish(job, Ending.failed(Problem.of("no_room", "Too big.", status=500, hint="Less.", layer="fc")))
    response = tenant.client.get(f"/v1/jobs/{job}/report")
    problem = Problem.model_validate(response.json())
    assert (response.status_code, problem.status, problem.code) == (409, 409, "no_room")
    assert (problem.detail, problem.hint, problem.layer) == ("Too big.", "Less.", "fc")
    assert tenant.client.get(f"/v1/jobs/{job}").json()["problem"]["code"] == "no_room"


def test_the_report_of_a_cancelled_job_says_so(tenant: Tenant) -> None:
    job = tenant.job()
    tenant.client.post(f"/v1/jobs/{job}/cancel")
    assert tenant.client.get(f"/v1/jobs/{job}/report").json()["code"] == "job_cancelled"


def test_artifacts_are_listed_and_downloaded(tenant: Tenant, app: FastAPI, tmp_path: Path) -> None:
    job, content = tenant.job(), b"a compressed model"
    assert tenant.client.get(f"/v1/jobs/{job}/artifacts").json() == []
    (tmp_path / "file").write_bytes(content)
    app.state.blobs.put_file(f"artifacts/{job}/1/model-0.pt2", tmp_path / "file")
    digest = hashlib.sha256(content).hexdigest()
    made = Made("model-0.pt2", "pt2", 0, len(content), digest)
    tenant.finish(job, Ending.succeeded({}, [made]))
    [artifact] = tenant.client.get(f"/v1/jobs/{job}/artifacts").json()
    assert artifact == {
        "name": "model-0.pt2",
        "format": "pt2",
        "bytes": 18,
        "sha256": digest,
        "candidate": 0,
        "href": f"/v1/jobs/{job}/artifacts/model-0.pt2",
    }
    whole = tenant.client.get(artifact["href"])
    assert (whole.content, whole.headers["etag"]) == (content, f'"{digest}"')
    assert "model-0.pt2" in whole.headers["content-disposition"]
    assert tenant.client.get(artifact["href"], headers={"Range": "bytes=2-5"}).content == b"comp"
    known = {"If-None-Match": f'"{digest}"'}
    assert tenant.client.get(artifact["href"], headers=known).status_code == 304
    assert tenant.client.get(f"/v1/jobs/{job}/artifacts/%00").status_code == 404
