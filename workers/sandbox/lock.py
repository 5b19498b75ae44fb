"""The moment from which a job's process can do nothing but compute."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from app.tether import die_with
from workers.sandbox import calls, files
from workers.sandbox.kernel import examine

_PR_SET_DUMPABLE = 4
_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2


class CannotLock(Exception):
    """This process cannot be confined: the message says what is in the way."""


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Capabilities(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def lock(scratch: str, *, required: bool, gpu: bool, parent: int | None = None, forks: bool = False) -> None:
    """Confine this process to the folder `scratch`; there is no way back.

    It ends with `parent`, which started it, has no privileges and gets none, opens what `files` allow and
    calls what `calls` allow: as far as the kernel has Landlock and seccomp, which it must where that is
    `required`. `gpu` lets it use NVIDIA's devices, `forks` start processes like itself. Raises `CannotLock`,
    and `OSError` where the kernel refuses.
    """
    kernel = examine()
    if required and kernel.missing:
        raise CannotLock(f"this machine lacks {' and '.join(kernel.missing)}")
    if sys.platform == "linux":
        if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:
            raise CannotLock("this process has other threads already, which would stay free")
        _drop_capabilities()
    die_with(parent or os.getppid(), signal.SIGKILL)
    if kernel.landlock:
        files.confine(Path(scratch), gpu=gpu, forks=forks)
    else:
        hide()  # from other jobs: Landlock would keep them out, and let the worker look in
    if kernel.seccomp:
        calls.confine(forks=forks)


def hide() -> None:
    """Keep this process's memory and environment from other processes of the same user, where that can be."""
    if sys.platform == "linux":
        _demand(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def _drop_capabilities() -> None:
    """Root's rights, too. To read what belongs to others stays: the installation may be another user's, and
    Landlock says what of it can be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, held = _Header(_CAPABILITY_VERSION, 0), (_Capabilities * 2)()
    _demand(libc.capget(ctypes.byref(header), held))
    kept = held[0].permitted & _CAP_DAC_READ_SEARCH
    left = (_Capabilities * 2)(_Capabilities(kept, kept, 0))
    _demand(libc.capset(ctypes.byref(header), left))


def _demand(status: int) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
