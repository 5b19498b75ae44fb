"""The Celery end of the doorbell: hear a bell, win the claim, make an attempt.

torch never gets into these processes: a job's child imports it.
"""

import logging
import mmap
import os
import socket
from functools import cache
from typing import Any

from celery.signals import worker_init, worker_process_init, worker_shutting_down

from app.blobs import open_store
from app.db.session import make_engine
from app.queue.doorbell import TASK, make_celery
from app.queue.janitor import Janitor
from app.queue.lifecycle import answer
from app.settings import get_settings
from workers.attempt import CHILD, Attempt, Bench
from workers.patience import patiently
from workers.sandbox.kernel import examine, refusal
from workers.sandbox.lock import hide

_log = logging.getLogger(__name__)
celery = make_celery(get_settings().resolved_broker_url)
child_command = CHILD
_stopping = mmap.mmap(-1, 1)  # one byte that the main process shares with the pool it forks


def is_stopping() -> bool:
    """Whether the worker was asked to stop: its jobs are released at their next checkpoint."""
    return _stopping[0] != 0


@worker_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _look_at_the_sandbox(**_: Any) -> None:
    """Say what jobs are confined by; exits where it has to be complete and is not."""
    hide()  # the environment holds secrets, and jobs are processes of the same user
    mode, kernel = get_settings().resolved_sandbox, examine()
    if mode == "off":
        _log.warning("jobs are not confined: RANKFOLD_SANDBOX is off")
    elif not kernel.missing:
        _log.warning("jobs are confined by %s", kernel)
    elif mode == "auto":
        _log.warning("jobs are confined by less than it takes: %s; see docs/sandbox.md", kernel)
    else:
        raise SystemExit(f"rankfold: {refusal(kernel)}")


@worker_shutting_down.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _stop(**_: Any) -> None:
    _stopping[0] = 1


@cache
def _bench() -> Bench:
    """Made after the fork: connections are no one else's."""
    settings = get_settings()
    engine = make_engine(settings.resolved_database_url)
    return Bench(settings, engine, open_store(settings.resolved_blob_url), is_stopping, child_command)


@worker_process_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _start_janitor(**_: Any) -> None:
    # In the pool and not in the main process: that one forks, and a thread's locks do not survive it.
    bench = _bench()
    Janitor(
        bench.engine,
        celery,
        lease_seconds=bench.settings.lease_seconds,
        max_attempts=bench.settings.max_attempts,
    ).start()


@celery.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery has no types
def run(job_id: str) -> None:
    """Answer a bell, which rings for one job and is heard for the oldest; does nothing if none waits."""
    if is_stopping():
        return
    bench = _bench()
    owner = f"{socket.gethostname()}:{os.getpid()}"
    job = patiently(lambda: answer(bench.engine, job_id, owner, bench.settings.lease_seconds), is_stopping)
    if job is not None:
        Attempt(bench, job).run()
