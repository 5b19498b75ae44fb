"""The heartbeat of one attempt: keeps its lease, carries its progress to the row, hears of its end."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.queue.lifecycle import Claimed, Happened, Pulse, Verdict, heartbeat

_log = logging.getLogger(__name__)


class Heart(threading.Thread):
    """Beats every quarter of the lease, and sooner when there is news, in a thread of its own.

    Transfers that take longer than a lease can so not lose it. A database that is away is asked again.
    """

    def __init__(self, engine: Engine, job: Claimed) -> None:
        super().__init__(name="heart", daemon=True)
        self._engine = engine
        self._lease = job.lease
        self._pulse = Pulse(checkpoints=job.checkpoints, warnings=job.warnings)
        self._guard = threading.Lock()
        self._news = threading.Event()
        self._stopped = threading.Event()
        self.verdict = Verdict.GO_ON

    @property
    def pulse(self) -> Pulse:
        """What the next beat stores."""
        return self._pulse

    def tell(self, *happened: Happened, **changes: Any) -> None:
        """Change the pulse; it is stored within about a second."""
        with self._guard:
            self._pulse = replace(self._pulse, happened=(*self._pulse.happened, *happened), **changes)
        self._news.set()

    def run(self) -> None:
        """Beat until stopped, or until the verdict is that the work must end."""
        while not self._stopped.is_set() and self.verdict is Verdict.GO_ON:
            try:
                self.beat()
            except SQLAlchemyError as error:
                _log.warning("a heartbeat failed: %s", type(error).__name__)
            self._stopped.wait(min(1.0, self._lease.seconds / 8))  # news come in bursts
            self._news.wait(self._lease.seconds / 8)

    def beat(self) -> Verdict:
        """Store the pulse now; raises `SQLAlchemyError`."""
        self._news.clear()
        with self._guard:
            pulse = self._pulse
        self.verdict = heartbeat(self._engine, self._lease, pulse)
        with self._guard:
            self._pulse = replace(self._pulse, happened=_without(self._pulse.happened, len(pulse.happened)))
        return self.verdict

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._news.set()
        self.join()


def _without(happened: Sequence[Happened], stored: int) -> Sequence[Happened]:
    return tuple(happened[stored:])
