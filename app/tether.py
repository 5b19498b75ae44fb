"""Processes that end with the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, signal_number: int) -> None:
    """Get `signal_number` when the process `parent`, which started this one, ends; exit if it has ended.

    Only Linux can do that; elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit("the process that started this one has ended")


def tethered(command: Sequence[str]) -> list[str]:
    """`command`, started by way of this module: it gets SIGTERM when the process that starts it ends."""
    return [sys.executable, "-P", "-m", "app.tether", str(os.getpid()), *command]


if __name__ == "__main__":
    die_with(int(sys.argv[1]), signal.SIGTERM)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 -- the attribute survives exec, and the process id stays
