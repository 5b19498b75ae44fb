"""The janitor: rings for jobs that wait and takes jobs back from workers that fell silent.

Every API process and every worker has one; any number may run at once.
"""

import logging
import random
import threading
import time
from collections.abc import Sequence
from typing import Self

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.queue.doorbell import QUEUES, is_full, ring
from app.queue.lifecycle import due, reap

_PERIOD_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Janitor(threading.Thread):
    """A thread that goes its round twice a second until it is stopped; also a context manager.

    Neither a lost broker nor a lost database ends it: what could not be done is done in a later round.
    """

    def __init__(self, engine: Engine, celery: Celery, *, lease_seconds: float, max_attempts: int) -> None:
        super().__init__(name="janitor", daemon=True)
        self._engine = engine
        self._celery = celery
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._stopped = threading.Event()
        self._await_heartbeats()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the round that is under way."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Go the rounds."""
        while not self._stopped.wait(_PERIOD_SECONDS * random.uniform(0.9, 1.1)):  # noqa: S311 -- spreads load
            try:
                self._round()
            except SQLAlchemyError as error:
                _log.warning("the database is away: %s", type(error).__name__)
                self._await_heartbeats()
            except Exception as error:  # whatever the transport raises
                _log.warning("the broker is away, jobs wait: %s", type(error).__name__)

    def _await_heartbeats(self) -> None:
        """Whoever comes late, or out of an outage, gives the workers one lease to renew theirs."""
        self._reap_from = time.monotonic() + self._lease_seconds

    def _round(self) -> None:
        if time.monotonic() >= self._reap_from and (count := reap(self._engine, self._max_attempts)):
            _log.warning("took %d job(s) back from workers that fell silent", count)
        self._ring(due(self._engine, QUEUES))

    def _ring(self, jobs: Sequence[tuple[str, str]]) -> None:
        full = {queue for queue in {queue for _, queue in jobs} if is_full(self._celery, queue)}
        for job_id, queue in jobs:
            if queue not in full:
                ring(self._celery, job_id, queue)
