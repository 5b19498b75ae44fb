"""Waiting for a database or a blob store that is away."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from obstore.exceptions import BaseError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

AWAY = (OperationalError, InterfaceError, PoolTimeoutError, BaseError, ConnectionError)
_PATIENCE_SECONDS = 600.0
_LONGEST_PAUSE_SECONDS = 2.0
_log = logging.getLogger(__name__)

T = TypeVar("T")


def patiently(action: Callable[[], T], give_up: Callable[[], bool]) -> T:
    """`action()`, again and again while the database or the store is away, for ten minutes at the most.

    When the time is over, or `give_up()` says so, the last error is raised.
    """
    deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.1
    while True:
        try:
            return action()
        except AWAY as error:
            if give_up() or time.monotonic() > deadline:
                raise
            _log.warning("away, asking again: %s", type(error).__name__)
        time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 -- spreads load
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
