import re

import pytest
from fastapi.testclient import TestClient

from app.contract.problem import Notice, Problem
from app.dashboard.pages import duration
from app.queue import lifecycle
from app.queue.lifecycle import Ending, Pulse
from tests.app.dashboard.reports import MADE, report, with_resources
from tests.app.tenants import Tenant

HTMX = {"HX-Request": "true"}


def finished(tenant: Tenant, *keeps: float) -> str:
    job_id = tenant.job(target={"keep": list(keeps)})
    tenant.finish(job_id, Ending.succeeded(report(*keeps), MADE))
    return job_id


def test_who_has_no_jobs_is_told_how_to_submit_one(visitor: TestClient) -> None:
    page = visitor.get("/").text
    assert "No jobs yet" in page
    assert "rankfold compress" in page
    assert "http://testserver/v1/jobs" in page


def test_jobs_are_listed_with_their_models_and_states(visitor: TestClient, tenant: Tenant) -> None:
    queued, running = tenant.job(), tenant.job()
    lease = tenant.claim(running).lease
    lifecycle.heartbeat(tenant.engine, lease, Pulse(stage="finetune", fraction=0.62, eta_seconds=83))
    page = visitor.get("/").text
    assert page.count(">model.pt2</a>") == 2
    assert page.index(running) < page.index(queued), "the newest comes first"
    assert 'value="0.62"' in page
    assert "finetune · 1 min 23 s left" in page


def test_a_deleted_model_is_known_by_its_id(visitor: TestClient, tenant: Tenant) -> None:
    model = tenant.model()
    tenant.finish(tenant.job(model=model), Ending.cancelled())
    assert tenant.client.delete(f"/v1/models/{model}").status_code == 204
    assert f">{model}</a>" in visitor.get("/").text


def test_the_list_is_fetched_anew_without_the_page_around_it(visitor: TestClient, tenant: Tenant) -> None:
    tenant.job()
    fragment = visitor.get("/", headers=HTMX).text
    assert fragment.strip().startswith('<div id="jobs" hx-get="/"')
    assert "<html" not in fragment


def test_older_jobs_are_a_page_away(visitor: TestClient, tenant: Tenant) -> None:
    jobs = [tenant.job() for _ in range(26)]
    first = visitor.get("/").text
    assert jobs[0] not in first
    (older,) = re.findall(r'href="(/\?cursor=[^"]+)"', first)
    assert jobs[0] in visitor.get(older).text


def test_a_wrong_cursor_is_a_page_that_says_so(visitor: TestClient) -> None:
    response = visitor.get("/?cursor=nonsense")
    assert response.status_code == 422
    assert "not a cursor of this listing" in response.text
    assert "text/html" in response.headers["content-type"]


def test_a_finished_job_shows_everything_it_found(visitor: TestClient, tenant: Tenant) -> None:
    job_id = finished(tenant, 0.5, 0.25)
    page = visitor.get(f"/jobs/{job_id}").text
    for words in (
        "Trade-off at keep 0.5.",
        "Faster, and less accurate.",
        "91.3 % [90.0, 92.5]",
        "layers.3.conv2",
    ):
        assert words in page
    assert "1 of 2 layers factorised" in page
    assert "too few channels to gain" in page
    assert page.count('<svg class="plot"') == 2
    assert page.count("<polyline") == 2
    for made in MADE:
        assert f'href="/v1/jobs/{job_id}/artifacts/{made.name}"' in page
    assert "hx-get" not in page, "nothing changes any more"


def test_resources_and_int8_forms_have_tables_where_they_were_measured(
    visitor: TestClient, tenant: Tenant
) -> None:
    job_id = tenant.job()
    tenant.finish(job_id, Ending.succeeded(with_resources(report(0.5)), MADE))
    page = visitor.get(f"/jobs/{job_id}").text
    for words in ("Resources", "Activations moved", "2.10 MB", "1.67 k", "25.0 mJ", "As int8", "350 kB"):
        assert words in page
    old = visitor.get(f"/jobs/{finished(tenant, 0.5)}").text
    assert "Resources" not in old
    assert "As int8" not in old


def test_a_job_says_what_it_makes(visitor: TestClient, tenant: Tenant) -> None:
    plain, quantized = tenant.job(outputs=["pt2"]), tenant.job(outputs=["onnx"], quantize="dynamic-int8")
    assert "<dd>pt2</dd>" in visitor.get(f"/jobs/{plain}").text
    assert "<dd>onnx, dynamic-int8</dd>" in visitor.get(f"/jobs/{quantized}").text


def test_why_there_is_no_energy_is_said(visitor: TestClient, tenant: Tenant) -> None:
    document = with_resources(report(0.5))
    document["original"] |= {"energy_per_inference_joules": None, "energy_reason": "There is no counter."}
    job_id = tenant.job()
    tenant.finish(job_id, Ending.succeeded(document, MADE))
    assert "No energy: There is no counter." in visitor.get(f"/jobs/{job_id}").text


def test_what_cross_validation_measured_is_shown_fold_by_fold(visitor: TestClient, tenant: Tenant) -> None:
    tried = {"fraction": 0.35, "metric": "top1", "folds": [0.8125, 0.75], "chosen": True}
    job_id = tenant.job()
    tenant.finish(job_id, Ending.succeeded({**report(0.5), "cross_validation": [tried]}, MADE))
    page = visitor.get(f"/jobs/{job_id}").text
    for words in ("Cross-validation", "Fold 2", "0.8125", "0.35", "chosen"):
        assert words in page
    assert "Cross-validation" not in visitor.get(f"/jobs/{finished(tenant, 0.5)}").text


def test_a_running_job_shows_its_way_and_asks_again(visitor: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job()
    lease = tenant.claim(job_id).lease
    notice = Notice(code="kept_dense", detail="It stays dense.", layer="norm")
    lifecycle.heartbeat(tenant.engine, lease, Pulse(stage="decompose", fraction=0.4, warnings=[notice]))
    page = visitor.get(f"/jobs/{job_id}").text
    assert 'class="done">plan<' in page
    assert 'class="now" aria-current="step">decompose<' in page
    assert 'class="ahead">finetune<' in page
    assert "It stays dense." in page
    fragment = visitor.get(f"/jobs/{job_id}", headers=HTMX)
    assert 'hx-trigger="every 1s"' in fragment.text
    assert "hx-refresh" not in fragment.headers


def test_the_end_of_a_job_loads_its_page_anew(visitor: TestClient, tenant: Tenant) -> None:
    job_id = finished(tenant, 0.5)
    assert visitor.get(f"/jobs/{job_id}", headers=HTMX).headers["hx-refresh"] == "true"


def test_a_failed_job_says_why_and_what_to_do(visitor: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job()
    problem = Problem.of(
        "nothing_to_compress", "No layer can be made smaller.", hint="Keep more.", field="target"
    )
    tenant.finish(job_id, Ending.failed(problem))
    page = visitor.get(f"/jobs/{job_id}").text
    for words in ("No layer can be made smaller.", "Keep more.", "nothing_to_compress", "target"):
        assert words in page


def test_a_job_is_cancelled_from_its_page(visitor: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job()
    response = visitor.post(f"/jobs/{job_id}/cancel")
    assert (response.status_code, response.headers["location"]) == (303, f"/jobs/{job_id}")
    assert "cancelled" in visitor.get(f"/jobs/{job_id}").text
    assert visitor.post(f"/jobs/{job_id}/cancel").status_code == 409


def test_another_tenants_job_is_not_there(visitor: TestClient, stranger: Tenant) -> None:
    job_id = stranger.job()
    for response in (visitor.get(f"/jobs/{job_id}"), visitor.post(f"/jobs/{job_id}/cancel")):
        assert response.status_code == 404
        assert "There is no such job." in response.text
    assert job_id not in visitor.get("/").text


def test_names_cannot_become_markup(visitor: TestClient, tenant: Tenant) -> None:
    job_id = tenant.job(model=tenant.model(name="<img src=x onerror=alert(1)>.pt2"))
    for path in ("/", f"/jobs/{job_id}"):
        page = visitor.get(path).text
        assert "<img src=x" not in page
        assert "&lt;img src=x" in page


def test_no_page_carries_scripts_styles_or_addresses_of_other_hosts(
    visitor: TestClient, tenant: Tenant
) -> None:
    job_id = finished(tenant, 0.5)
    for path in ("/", f"/jobs/{job_id}", "/login", "/jobs/unknown"):
        response = visitor.get(path)
        page = response.text
        assert re.search(r"<script(?! src=\"/static/)", page) is None
        assert re.search(r"<style|\sstyle=|\son\w+=|hx-on", page) is None
        assert re.search(r"(?:src|href|action)=\"(?!/|#)", page) is None
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["htmx.min.js", "style.css", "mark.svg", "htmx.LICENSE"])
def test_static_files_are_served_to_everybody(browser: TestClient, name: str) -> None:
    assert browser.get(f"/static/{name}").status_code == 200


def test_durations_are_for_people() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3599, 7500)] == [
        "0 s", "59 s", "1 min 1 s", "59 min 59 s", "2 h 5 min",
    ]  # fmt: skip
