"""A user's whole way, through the real service; and what happens when its processes are killed."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import psutil
import pytest
import torch

from app.client.client import Client
from app.contract.spec import JobSpec
from app.contract.status import JobStatus, Stage
from tests.acceptance.conftest import Service, serving
from tests.processes import kill_tree, wait_until
from tests.s3 import BUCKET, s3_server
from tests.s3 import environment as s3_environment
from workers.sandbox.kernel import examine

_API_BYTES = 150 * 2**20


def ready(client: Client, small: Path, *roles: str) -> dict[str, str]:
    """The ids of the uploaded and inspected model, and of the data sets in these roles."""
    model = client.upload("models", small / "model.pt2")
    data = {role: client.upload("datasets", small / f"{role}.npz") for role in roles}
    return {
        "model": client.inspected("models", model.id).id,
        **{role: client.inspected("datasets", stored.id).id for role, stored in data.items()},
    }


def specification(ids: dict[str, str], **changed: Any) -> JobSpec:
    data = {role: ids[role] for role in ("train", "test") if role in ids}
    return JobSpec.model_validate({"model": ids["model"], "data": data, "device": "cpu", **changed})


def test_a_network_goes_in_and_comes_out_smaller_with_numbers_that_hold_outside(
    small: Path, tmp_path: Path
) -> None:
    sandbox = "auto" if examine().missing else "require"
    with serving(tmp_path, sandbox=sandbox) as service, service.client() as client:
        ids = ready(client, small, "train", "test")
        wanted = specification(ids, target={"keep": 0.6}, finetune={"epochs": 2, "batch_size": 32})
        job = client.submit(wanted)
        *_, last = client.follow(job.id)
        assert last.status is JobStatus.SUCCEEDED
        report = client.report(job.id)
        files = {a.format: client.download(a, tmp_path / "out") for a in client.artifacts(job.id)}
        assert psutil.Process(service.pid("api")).memory_info().rss < _API_BYTES
    assert f"jobs are confined by {examine()}" in (tmp_path / "log").read_text() or sandbox == "auto"
    [candidate] = report.candidates
    assert candidate.macs <= 0.6 * report.original.macs
    assert {"torch", "onnxruntime"} <= candidate.latency.keys()
    assert candidate.peak_memory_bytes is not None
    assert candidate.metric is not None
    with np.load(small / "test.npz") as test:
        x, target = test["x"], test["target"]
    session = onnxruntime.InferenceSession(files["onnx"])
    hits = session.run(None, {session.get_inputs()[0].name: x})[0].argmax(-1) == target
    assert candidate.metric.value == pytest.approx(hits.mean(), abs=0.011)  # one row in a hundred may tip
    module = torch.export.load(files["pt2"]).module()
    assert candidate.metric.value == (module(torch.from_numpy(x)).argmax(-1).numpy() == target).mean()


def _events(service: Service, job_id: str) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {service.key}"}
    page = httpx.get(f"{service.url}/v1/jobs/{job_id}/events", headers=headers, params={"limit": 100})
    items: list[dict[str, Any]] = page.raise_for_status().json()["items"]
    return items


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_resumes_at_its_last_stage(small: Path, tmp_path: Path) -> None:
    with serving(tmp_path, lease_seconds="5") as service, service.client() as client:
        job = client.submit(specification(ready(client, small, "train"), finetune={"epochs": 30}))
        for state in client.follow(job.id):
            if state.stage == Stage.FINETUNE:
                kill_tree(service.pid("worker"))
                break
        *_, last = client.follow(job.id)
        assert (last.status, last.attempt) == (JobStatus.SUCCEEDED, 2)
        kinds = Counter((event["kind"], event["attempt"]) for event in _events(service, job.id))
        assert kinds["started", 2] == 1
        second = [e["data"] for e in _events(service, job.id) if e["kind"] == "started" and e["attempt"] == 2]
        assert Stage.DECOMPOSE in str(second)
        assert client.report(job.id).candidates[0].finetune[-1].step > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_accepted_job_finishes_once_though_api_and_broker_are_killed(
    small: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, lease_seconds="5") as service, service.client() as client:
        spec = specification(ready(client, small), outputs=["pt2"])
        accepted = []
        for number in range(20):
            if number in (6, 13):
                for part in ("api", "broker"):
                    kill_tree(service.pid(part))
            accepted.append(client.submit(spec).id)  # the client repeats, with an idempotency key
        assert len(set(accepted)) == 20
        for job_id in accepted:
            *_, last = client.follow(job_id)
            assert last.status is JobStatus.SUCCEEDED
            assert sum(event["kind"] == "succeeded" for event in _events(service, job_id)) == 1
        wait_until(lambda: not list((tmp_path / "var").glob("spool/*")), what="an empty spool")


@pytest.mark.slow
def test_the_same_service_stands_on_postgresql_and_s3(
    small: Path, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as endpoint:
        for name, value in s3_environment(endpoint).items():
            monkeypatch.setenv(name, value)
        stores = {"database_url": postgres_url, "blob_url": f"s3://{BUCKET}/v1"}
        with serving(tmp_path, **stores) as service, service.client() as client:
            job = client.submit(specification(ready(client, small, "test"), target={"keep": 0.6}))
            *_, last = client.follow(job.id)
            assert last.status is JobStatus.SUCCEEDED
            files = [client.download(artifact, tmp_path / "out") for artifact in client.artifacts(job.id)]
    assert sorted(path.name for path in files) == ["candidate-0.onnx", "candidate-0.pt2", "report.json"]
    assert not list((tmp_path / "var").glob("**/*.db"))
    assert not (tmp_path / "var" / "blobs").exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_job_for_a_gpu_that_is_not_there_says_so(small: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as service, service.client() as client:
        job = client.submit(specification(ready(client, small), device="cuda"))
        *_, last = client.follow(job.id)
    assert last.status is JobStatus.FAILED
    assert last.problem is not None
    assert (last.problem.code, last.problem.field) == ("no_gpu", "device")
