"""The janitor against a real broker."""

import redis
from sqlalchemy import Engine

from app.queue.doorbell import is_full, make_celery, ring
from app.queue.janitor import Janitor
from app.queue.lifecycle import claim
from tests.app.queue.jobs import add_job, row_of
from tests.processes import Broker, wait_until


def janitor(engine: Engine, broker: Broker, lease_seconds: float = 1.0) -> Janitor:
    return Janitor(engine, make_celery(broker.url), lease_seconds=lease_seconds, max_attempts=5)


def bells(broker: Broker, queue: str) -> int:
    with redis.Redis(unix_socket_path=str(broker.socket)) as client:
        return int(client.llen(queue))


def test_a_queued_job_is_rung_in_its_queue(engine: Engine, broker: Broker) -> None:
    add_job(engine)
    add_job(engine, queue="gpu")
    with janitor(engine, broker):
        wait_until(lambda: (bells(broker, "cpu"), bells(broker, "gpu")) == (1, 1))
    assert (bells(broker, "cpu"), bells(broker, "gpu")) == (1, 1)


def test_a_job_taken_while_the_broker_was_away_is_rung_later(engine: Engine, broker: Broker) -> None:
    broker.kill()
    job_id = add_job(engine)
    with janitor(engine, broker):
        wait_until(lambda: row_of(engine, job_id).next_publish > 0, what="a ring into the void")
        broker.start()
        wait_until(lambda: bells(broker, "cpu") == 1, what="the second ring")
    assert row_of(engine, job_id).status == "queued"


def test_a_silent_worker_loses_its_job(engine: Engine, broker: Broker) -> None:
    job_id = add_job(engine)
    claim(engine, job_id, "a worker", 0.2)
    with janitor(engine, broker):
        wait_until(lambda: row_of(engine, job_id).status == "queued")
    assert row_of(engine, job_id).lease_owner is None


def test_a_janitor_waits_one_lease_before_it_reaps(engine: Engine, broker: Broker) -> None:
    silent = add_job(engine)
    claim(engine, silent, "a worker", 0.1)
    bell = add_job(engine)
    with janitor(engine, broker, lease_seconds=60.0):
        wait_until(lambda: row_of(engine, bell).next_publish > 0, what="a whole round")
        wait_until(lambda: bells(broker, "cpu") == 1, what="a whole round")
    assert row_of(engine, silent).status == "running"


def test_bells_do_not_pile_up_while_nobody_listens(broker: Broker) -> None:
    celery = make_celery(broker.url)
    assert not is_full(celery, "cpu")
    for number in range(32):
        ring(celery, f"job_{number}", "cpu")
    assert is_full(celery, "cpu")
    assert not is_full(celery, "gpu")
