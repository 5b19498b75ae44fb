import hashlib
from pathlib import Path

import httpx
import pytest

from app.client import ApiError, Client
from app.contract.spec import JobSpec, Target
from app.contract.status import JobStatus, UploadStatus
from tests.app.client.service import JOB, WEIGHTS, Service, problem

MODEL = "mdl_" + "a" * 32


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    path.write_bytes(bytes(range(256)) * 10_000)
    return path


def test_an_upload_arrives_whole_and_tells_its_progress(
    client: Client, service: Service, big_file: Path
) -> None:
    sent: list[int] = []
    stored = client.upload("models", big_file, sent.append)
    assert stored.sha256 == hashlib.sha256(big_file.read_bytes()).hexdigest()
    assert stored.name == "model.pt2"
    assert sum(sent) == big_file.stat().st_size
    assert len(sent) > 1


def test_inspection_is_waited_for(client: Client, big_file: Path) -> None:
    stored = client.upload("datasets", big_file)
    assert stored.status is UploadStatus.INSPECTING
    assert client.inspected("datasets", stored.id).status is UploadStatus.READY


def test_a_rejected_upload_raises_its_problem(client: Client, service: Service, big_file: Path) -> None:
    service.rejection = problem("not_a_zip", "This is no zip archive.", 422, hint="Use torch.export.save.")[1]
    stored = client.upload("models", big_file)
    with pytest.raises(ApiError, match="no zip archive") as raised:
        client.inspected("models", stored.id)
    assert raised.value.problem.hint == "Use torch.export.save."


def test_only_what_was_asked_for_is_sent(client: Client, service: Service) -> None:
    client.submit(JobSpec(model=MODEL, target=Target(keep=[0.5, 0.25])))
    assert list(service.jobs.values()) == [{"model": MODEL, "target": {"keep": [0.5, 0.25]}}]


def test_a_plan_is_asked_for_like_a_job_and_queues_none(client: Client, service: Service) -> None:
    service.refusals = 1
    plan = client.plan(JobSpec(model=MODEL, target=Target(keep=[0.5, 0.25])))
    assert service.planned == [{"model": MODEL, "target": {"keep": [0.5, 0.25]}}]
    assert service.jobs == {}
    assert [candidate.keep for candidate in (plan, *plan.others)] == [0.5, 0.25]
    assert plan.layers[0].rank == [64, 48]


def test_a_busy_service_is_asked_again_with_the_same_idempotency_key(
    client: Client, service: Service
) -> None:
    service.refusals = 2
    assert client.submit(JobSpec(model=MODEL)).id == JOB
    assert len(service.jobs) == 1
    assert service.refusals == 0


def test_patience_ends(service: Service) -> None:
    service.refusals = 100
    with Client(service.url, "the-key", patience=0.2) as client, pytest.raises(ApiError) as raised:
        client.submit(JobSpec(model=MODEL))
    assert raised.value.problem.code == "unavailable"


def test_a_wrong_key_is_told_at_once(service: Service, big_file: Path) -> None:
    with Client(service.url, "another", patience=5.0) as client, pytest.raises(ApiError) as raised:
        client.upload("models", big_file)
    assert raised.value.problem.status == httpx.codes.UNAUTHORIZED
    assert service.uploads == {}


def test_a_job_is_followed_to_its_end_and_unchanged_states_are_not_told_twice(
    client: Client, service: Service
) -> None:
    service.states = [
        {"status": "queued"},
        {"status": "running", "stage": "plan", "progress": {"fraction": 0.2, "eta_seconds": 9}},
        {"status": "succeeded", "stage": "package", "progress": {"fraction": 1.0}},
    ]
    states = list(client.follow(JOB))
    assert [state.status for state in states] == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert states[1].progress.eta_seconds == 9
    assert service.not_modified == 2


def test_a_download_is_complete_and_checked(client: Client, tmp_path: Path) -> None:
    (artifact,) = client.artifacts(JOB)
    path = client.download(artifact, tmp_path / "new" / "folder")
    assert path.read_bytes() == WEIGHTS
    assert [item.name for item in path.parent.iterdir()] == ["model.pt2"]


def test_a_corrupted_download_leaves_nothing(client: Client, service: Service, tmp_path: Path) -> None:
    service.weights = WEIGHTS[:-1] + b"!"
    (artifact,) = client.artifacts(JOB)
    with pytest.raises(ApiError, match="SHA-256"):
        client.download(artifact, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_cannot_leave_its_folder(client: Client, tmp_path: Path) -> None:
    artifact = client.artifacts(JOB)[0].model_copy(update={"name": "../../outside.pt2"})
    assert client.download(artifact, tmp_path).parent == tmp_path


def test_the_report_is_read_into_the_contract(client: Client) -> None:
    report = client.report(JOB)
    assert report.candidates[0].macs == 18206464


def test_nobody_there_is_a_problem_with_a_way_out(tmp_path: Path, big_file: Path) -> None:
    with Client("http://127.0.0.1:9", "key", patience=0.1) as client, pytest.raises(ApiError) as raised:
        client.report(JOB)
    assert raised.value.problem.code == "unreachable"
    assert "rankfold serve" in (raised.value.problem.hint or "")


def test_an_answer_of_another_service_is_a_problem(client: Client) -> None:
    with pytest.raises(ApiError) as raised:
        client.inspected("datasets", "html")
    assert raised.value.problem.code == "unexpected_answer"
