"""Functions for a clean process to call."""

import logging
import os
import resource
import sys
import time

from workers.engine.errors import EngineError


def echo(**arguments: object) -> dict[str, object]:
    """The arguments, while libraries print."""
    os.write(1, b"noise on standard output\n")
    logging.warning("noise on standard error")
    return arguments


def surroundings() -> dict[str, object]:
    """What the process sees of its origin."""
    return {
        "environment": dict(os.environ),
        "torch": "torch" in sys.modules,
        "address_space": resource.getrlimit(resource.RLIMIT_AS)[0],
    }


def note(where: str) -> None:
    """Leave a note in the process, and what starts from it."""
    os.environ["NOTES"] = f"{os.environ.get('NOTES', '')} {where}"


def notes() -> list[str]:
    """The notes that were left."""
    return os.environ.get("NOTES", "").split()


def refuse() -> None:
    """An error for the user."""
    raise EngineError("no_such_thing", "There is no such thing.", hint="Ask for another.", layer="fc")


def stumble() -> None:
    """An error of ours."""
    raise KeyError("/secret/path")


def die() -> None:
    """A crash of a native library."""
    os.abort()


def idle() -> None:
    """Longer than anybody waits."""
    time.sleep(60)


def crash_at_exit() -> str:
    """An answer from a process that would crash while it is torn down."""
    import atexit  # noqa: PLC0415  # for this process alone

    atexit.register(os.abort)
    return "answered"
