"""Real workers, killed, frozen and cut off: nothing is lost and nothing is done twice."""

import contextlib
import json
import signal

import psutil
import pytest
import redis
import sqlalchemy as sa

from app.db.session import reading, writing
from app.db.tables import JobEvent
from app.queue.lifecycle import request_cancel
from tests.app.queue.jobs import events_of
from tests.processes import each, gone, kill_tree, tree, wait_until
from tests.workers.faults.conftest import Crew


def history(crew: Crew, job_id: str) -> dict[str, int]:
    """Which attempt did each stage, as the artifact tells."""
    attempt = crew.row(job_id).attempt
    chunks = crew.store.stream(f"artifacts/{job_id}/{attempt}/candidate-0.pt2", 0, 1 << 20)
    return dict(json.loads(b"".join(chunks)))


def successes(crew: Crew) -> list[str]:
    with reading(crew.engine) as connection:
        return list(connection.scalars(sa.select(JobEvent.job_id).where(JobEvent.kind == "succeeded")))


def children(worker: int) -> list[psutil.Process]:
    """The processes of jobs under a worker. What has ended beside them may not have been waited for yet."""
    found = []
    for process in tree(worker):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if "tests.workers.fake_child" in process.cmdline():
                found.append(process)
    return found


def test_a_killed_workers_job_is_resumed_from_its_last_stage(crew: Crew) -> None:
    job_id = crew.job(stage_seconds=0.3)
    with crew.worker() as worker:
        crew.wait_for_stage(job_id, "plan")
        family = tree(worker.pid)
        kill_tree(worker.pid)
        wait_until(lambda: gone(family), what="the end of the worker and its child")
    done = set(crew.row(job_id).checkpoints)
    with crew.worker():
        row = crew.wait(job_id)
    assert (row.status, row.attempt) == ("succeeded", 2)
    assert {stage for stage, attempt in history(crew, job_id).items() if attempt == 1} == done


def test_a_child_dies_with_the_worker_process_that_started_it(crew: Crew) -> None:
    job_id = crew.job(stage_seconds=60.0)
    with crew.worker() as worker:
        wait_until(lambda: crew.row(job_id).stage == "inspect")
        (child,) = children(worker.pid)
        pool = child.parent()
        assert pool is not None
        pool.kill()
        wait_until(lambda: gone([child]), 5.0, "the end of the child")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_killed_child_is_replaced_at_once(crew: Crew) -> None:
    job_id = crew.job(stage_seconds=0.3)
    with crew.worker() as worker:
        crew.wait_for_stage(job_id, "inspect")
        (child,) = children(worker.pid)
        child.kill()
        row = crew.wait(job_id)
    assert (row.status, row.attempt) == ("succeeded", 2)
    assert events_of(crew.engine, job_id).count("requeued") == 1


def test_a_flushed_broker_loses_no_job(crew: Crew) -> None:
    jobs = [crew.job() for _ in range(3)]
    wait_until(lambda: all(crew.row(job).next_publish > 0 for job in jobs), what="the rings")
    with redis.Redis(unix_socket_path=str(crew.broker.socket)) as client:
        client.flushall()
    with crew.worker():
        rows = [crew.wait(job) for job in jobs]
    assert [row.status for row in rows] == ["succeeded"] * 3


@pytest.mark.slow
def test_a_killed_broker_loses_no_job_and_doubles_none(crew: Crew) -> None:
    with crew.worker():
        jobs = [crew.job() for _ in range(3)]
        wait_until(lambda: len(successes(crew)) >= 1)
        crew.broker.kill()
        jobs += [crew.job() for _ in range(3)]
        crew.broker.start()
        rows = [crew.wait(job) for job in jobs]
    assert [row.status for row in rows] == ["succeeded"] * 6
    assert sorted(successes(crew)) == sorted(jobs)


def test_a_queued_job_that_is_cancelled_never_runs(crew: Crew) -> None:
    cancelled, other = crew.job(), crew.job()
    with writing(crew.engine) as connection:
        request_cancel(connection, cancelled)
    with crew.worker():
        crew.wait(other)
    assert events_of(crew.engine, cancelled) == ["queued", "cancelled"]


def test_a_running_job_is_cancelled_within_a_heartbeat(crew: Crew) -> None:
    job_id = crew.job(stage_seconds=20.0)
    with crew.worker() as worker:
        wait_until(lambda: crew.row(job_id).stage == "inspect")
        with writing(crew.engine) as connection:
            request_cancel(connection, job_id)
        row = crew.wait(job_id, seconds=5.0)
        wait_until(lambda: not children(worker.pid))
    assert row.status == "cancelled"


def test_a_frozen_worker_wakes_up_without_its_job(crew: Crew) -> None:
    job_id = crew.job(stage_seconds=0.4)
    with crew.worker() as zombie:
        crew.wait_for_stage(job_id, "inspect")
        family = tree(zombie.pid)
        each(family, signal.SIGSTOP)
        with crew.worker():
            wait_until(lambda: crew.row(job_id).attempt == 2, 40.0, "the second attempt")
            each(family[::-1], signal.SIGCONT)
            row = crew.wait(job_id)
    assert (row.status, row.attempt) == ("succeeded", 2)
    assert successes(crew) == [job_id]
    assert set(history(crew, job_id).values()) == {1, 2}


def test_a_worker_that_is_told_to_stop_hands_its_job_back(crew: Crew) -> None:
    job_id = crew.job(stage_seconds=0.3)
    with crew.worker() as worker:
        crew.wait_for_stage(job_id, "inspect")
        worker.terminate()
        assert worker.wait(20) == 0
        assert events_of(crew.engine, job_id)[-1] == "released"
    with crew.worker():
        row = crew.wait(job_id)
    assert (row.status, row.attempt) == ("succeeded", 2)


@pytest.mark.slow
def test_many_jobs_survive_many_faults(crew: Crew) -> None:
    jobs = [crew.job(stage_seconds=0.2) for _ in range(20)]
    with crew.worker(concurrency=2) as first:
        wait_until(lambda: len(successes(crew)) >= 3, 60.0)
        kill_tree(first.pid)
    with crew.worker(concurrency=2) as second:
        wait_until(lambda: len(successes(crew)) >= 6, 60.0)
        crew.broker.kill()
        wait_until(lambda: len(successes(crew)) >= 7, 60.0)
        crew.broker.start()
        second.terminate()
        second.wait(30)
    with crew.worker(concurrency=2):
        rows = [crew.wait(job, 120.0) for job in jobs]
        wait_until(lambda: crew.store.list("checkpoints") == [], what="the deletion of checkpoints")
    assert [row.status for row in rows] == ["succeeded"] * 20
    assert sorted(successes(crew)) == sorted(jobs)
