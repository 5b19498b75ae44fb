"""Every transition of a job, on both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from app.contract.problem import Notice, Problem
from app.db.session import reading, writing
from app.db.tables import Artifact, Job
from app.queue.doorbell import QUEUES
from app.queue.lifecycle import (
    Claimed,
    Ending,
    Happened,
    Lease,
    Made,
    Pulse,
    Verdict,
    answer,
    claim,
    describe,
    due,
    finish,
    heartbeat,
    reap,
    release,
    request_cancel,
    retry,
)
from tests.app.queue.jobs import add_job, add_upload, events_of, expire, row_of, upload_of

PROBLEM = Problem.of("wrong_input", "The data has no array named x.")


def claimed(engine: Engine, job_id: str) -> Claimed:
    job = claim(engine, job_id, "a worker", 30.0)
    assert job is not None
    return job


def cancel(engine: Engine, job_id: str) -> bool:
    with writing(engine) as connection:
        return request_cancel(connection, job_id)


def test_a_job_is_claimed_by_one_of_many(engine: Engine) -> None:
    job_id = add_job(engine, seed=7)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: claim(engine, job_id, f"worker {n}", 30.0), range(8)))
    won = [job for job in claims if job is not None]
    assert [(job.lease, job.spec) for job in won] == [(Lease(job_id, 1, 30.0), {"seed": 7})]
    assert events_of(engine, job_id) == ["queued", "started"]


def test_a_heartbeat_stores_what_it_is_told(engine: Engine) -> None:
    job_id = add_job(engine)
    lease = claimed(engine, job_id).lease
    expire(engine, job_id)
    notice = Notice(code="kept_dense", detail="too small", layer="fc")
    pulse = Pulse(
        "plan", 0.25, 12.0, {"inspect": 1}, [notice], [Happened("stage_started", {"stage": "plan"})]
    )
    assert heartbeat(engine, lease, pulse) is Verdict.GO_ON
    row = row_of(engine, job_id)
    assert (row.stage, row.fraction, row.eta_seconds, row.checkpoints) == ("plan", 0.25, 12.0, {"inspect": 1})
    assert [Notice.model_validate(warning) for warning in row.warnings] == [notice]
    assert reap(engine, 5) == 0
    assert events_of(engine, job_id)[-1] == "stage_started"


def test_success_comes_with_its_report_and_artifacts(engine: Engine) -> None:
    job_id = add_job(engine)
    lease = claimed(engine, job_id).lease
    made = Made("candidate-0.pt2", "pt2", 0, 10, "ab")
    assert finish(engine, lease, Ending.succeeded({"model": "m"}, [made]))
    row = row_of(engine, job_id)
    assert (row.status, row.fraction, row.report, row.lease_owner) == ("succeeded", 1.0, {"model": "m"}, None)
    with reading(engine) as connection:
        artifact = connection.execute(sa.select(*Artifact.__table__.columns)).one()
    assert (artifact.job_id, artifact.attempt, artifact.name) == (job_id, 1, "candidate-0.pt2")


def test_a_zombie_can_write_nothing(engine: Engine) -> None:
    job_id = add_job(engine)
    zombie = claimed(engine, job_id).lease
    expire(engine, job_id)
    assert reap(engine, 5) == 1
    successor = claimed(engine, job_id)
    before = (row_of(engine, job_id), events_of(engine, job_id))
    assert successor.lease.attempt == 2
    assert (
        heartbeat(engine, zombie, Pulse(fraction=0.9, happened=[Happened("stage_started")])) is Verdict.LOST
    )
    assert not finish(engine, zombie, Ending.succeeded({}, [Made("a", "pt2", 0, 1, "ab")]))
    assert not release(engine, zombie)
    assert not retry(engine, zombie, PROBLEM, 5)
    assert (row_of(engine, job_id), events_of(engine, job_id)) == before
    with reading(engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Artifact)) == 0


def test_a_successor_starts_from_the_checkpoints(engine: Engine) -> None:
    job_id = add_job(engine)
    warning = Notice(code="kept_dense", detail="too small")
    pulse = Pulse("decompose", 0.5, None, {"inspect": 1, "plan": 1}, [warning])
    heartbeat(engine, claimed(engine, job_id).lease, pulse)
    expire(engine, job_id)
    reap(engine, 5)
    successor = claimed(engine, job_id)
    assert successor.checkpoints == {"inspect": 1, "plan": 1}
    assert successor.warnings == [warning]


def test_a_queued_job_is_cancelled_at_once(engine: Engine) -> None:
    job_id = add_job(engine)
    assert cancel(engine, job_id)
    assert row_of(engine, job_id).status == "cancelled"
    assert claim(engine, job_id, "a worker", 30.0) is None
    assert not cancel(engine, job_id)


def test_a_running_job_hears_of_its_cancellation(engine: Engine) -> None:
    job_id = add_job(engine)
    lease = claimed(engine, job_id).lease
    assert cancel(engine, job_id)
    assert cancel(engine, job_id)
    assert heartbeat(engine, lease, Pulse()) is Verdict.CANCEL
    assert finish(engine, lease, Ending.cancelled())
    assert events_of(engine, job_id) == ["queued", "started", "cancel_requested", "cancelled"]


def test_an_unknown_job_cannot_be_cancelled(engine: Engine) -> None:
    assert not cancel(engine, "job_unknown")


@pytest.mark.parametrize("way_back", ["release", "retry", "reap"])
def test_a_job_that_is_being_cancelled_is_never_queued_again(engine: Engine, way_back: str) -> None:
    job_id = add_job(engine)
    lease = claimed(engine, job_id).lease
    cancel(engine, job_id)
    expire(engine, job_id)
    ways: dict[str, Callable[[], int]] = {
        "release": lambda: release(engine, lease),
        "retry": lambda: retry(engine, lease, PROBLEM, 5),
        "reap": lambda: reap(engine, 5),
    }
    assert ways[way_back]()
    assert row_of(engine, job_id).status == "cancelled"


def test_a_job_whose_worker_keeps_dying_fails(engine: Engine) -> None:
    job_id = add_job(engine)
    for _ in range(3):
        assert row_of(engine, job_id).status == "queued"
        claimed(engine, job_id)
        expire(engine, job_id)
        reap(engine, 3)
    row = row_of(engine, job_id)
    assert (row.status, row.problem["code"], row.attempt) == ("failed", "worker_lost", 3)
    assert events_of(engine, job_id).count("requeued") == 2


def test_a_release_does_not_count_as_a_death(engine: Engine) -> None:
    job_id = add_job(engine)
    for _ in range(4):
        assert release(engine, claimed(engine, job_id).lease)
    assert retry(engine, claimed(engine, job_id).lease, PROBLEM, 2)
    assert row_of(engine, job_id).status == "queued"
    assert retry(engine, claimed(engine, job_id).lease, PROBLEM, 2)
    assert row_of(engine, job_id).problem["code"] == "wrong_input"


def test_an_inspection_makes_its_upload_ready(engine: Engine) -> None:
    upload_id = add_upload(engine)
    job_id = add_job(engine, "inspect_model", upload_id=upload_id)
    finish(engine, claimed(engine, job_id).lease, Ending.succeeded({"rows": 3}))
    upload = upload_of(engine, upload_id)
    assert (upload.status, upload.summary, upload.problem) == ("ready", {"rows": 3}, None)
    assert row_of(engine, job_id).report is None


def test_an_upload_that_is_described_is_ready_before_its_inspection_ends(engine: Engine) -> None:
    upload_id = add_upload(engine)
    job_id = add_job(engine, "inspect_model", upload_id=upload_id)
    lease = claimed(engine, job_id).lease
    describe(engine, lease, {"rows": 3})
    upload = upload_of(engine, upload_id)
    assert (upload.status, upload.summary) == ("ready", {"rows": 3})
    assert row_of(engine, job_id).status == "running"
    finish(engine, lease, Ending.succeeded({"rows": 3, "menus": []}))
    assert upload_of(engine, upload_id).summary == {"rows": 3, "menus": []}


def test_what_fails_after_that_takes_nothing_back(engine: Engine) -> None:
    upload_id = add_upload(engine)
    job_id = add_job(engine, "inspect_model", upload_id=upload_id)
    lease = claimed(engine, job_id).lease
    describe(engine, lease, {"rows": 3})
    finish(engine, lease, Ending.failed(PROBLEM))
    upload = upload_of(engine, upload_id)
    assert (upload.status, upload.summary, upload.problem) == ("ready", {"rows": 3}, None)
    assert row_of(engine, job_id).status == "failed"


def test_whoever_lost_the_lease_describes_nothing(engine: Engine) -> None:
    upload_id = add_upload(engine)
    job_id = add_job(engine, "inspect_model", upload_id=upload_id)
    lease = claimed(engine, job_id).lease
    expire(engine, job_id)
    reap(engine, 5)
    describe(engine, lease, {"rows": 3})
    assert upload_of(engine, upload_id).status == "inspecting"


def test_an_inspection_that_fails_rejects_its_upload(engine: Engine) -> None:
    upload_id = add_upload(engine)
    job_id = add_job(engine, "inspect_dataset", upload_id=upload_id)
    finish(engine, claimed(engine, job_id).lease, Ending.failed(PROBLEM))
    upload = upload_of(engine, upload_id)
    assert (upload.status, upload.problem["code"]) == ("rejected", "wrong_input")


def test_an_inspection_that_kills_its_workers_rejects_its_upload(engine: Engine) -> None:
    upload_id = add_upload(engine)
    job_id = add_job(engine, "inspect_model", upload_id=upload_id)
    claimed(engine, job_id)
    expire(engine, job_id)
    reap(engine, 1)
    assert row_of(engine, job_id).problem["code"] == "worker_lost"
    upload = upload_of(engine, upload_id)
    assert (upload.status, upload.problem["code"]) == ("rejected", "inspection_failed")


def test_the_oldest_jobs_of_each_queue_are_due_once(engine: Engine) -> None:
    cpu = [add_job(engine) for _ in range(40)]
    gpu = add_job(engine, queue="gpu")
    rung = due(engine, QUEUES)
    assert len(rung) == 33
    assert {job for job, queue in rung if queue == "cpu"} <= set(cpu)
    assert (gpu, "gpu") in rung
    assert due(engine, QUEUES) == []
    claimed(engine, rung[0][0])
    assert len(due(engine, QUEUES)) == 1


def test_a_ring_nobody_heard_is_repeated(engine: Engine) -> None:
    job_id = add_job(engine)
    due(engine, QUEUES)
    with writing(engine) as connection:
        wait = connection.scalar(sa.select(Job.next_publish - Job.created_at).where(Job.id == job_id))
        connection.execute(sa.update(Job).values(next_publish=Job.next_publish - 8.0))
    assert wait == pytest.approx(8.0, abs=1.0)
    assert due(engine, QUEUES) == [(job_id, "cpu")]


def test_two_reapers_requeue_a_job_once(engine: Engine) -> None:
    job_id = add_job(engine)
    claimed(engine, job_id)
    expire(engine, job_id)
    with ThreadPoolExecutor(4) as pool:
        taken = sum(pool.map(lambda _: reap(engine, 5), range(4)))
    assert taken == 1
    assert events_of(engine, job_id).count("requeued") == 1


def test_a_bell_is_answered_with_the_oldest_job_of_its_queue(engine: Engine) -> None:
    elsewhere = add_job(engine, queue="gpu")
    waiting = [add_job(engine) for _ in range(3)]
    cancelled, *others = waiting
    with writing(engine) as connection:
        # SQLite's clock counts milliseconds: jobs made within one have no order but their names'.
        for age, job_id in enumerate(reversed(waiting), 1):
            connection.execute(sa.update(Job).values(created_at=Job.created_at - age).where(Job.id == job_id))
        request_cancel(connection, cancelled)
    for expected in others:
        job = answer(engine, waiting[2], "a worker", 30.0)
        assert job is not None
        assert job.lease.job_id == expected
    assert answer(engine, waiting[2], "a worker", 30.0) is None
    assert answer(engine, "job_gone", "a worker", 30.0) is None
    assert row_of(engine, elsewhere).status == "queued"
