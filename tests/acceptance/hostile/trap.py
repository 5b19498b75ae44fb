"""What code in a file would do if it ran, and whether it did: it makes a file, a connection and a process."""

import contextlib
import os
import pickle
import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.processes import wait_until

_PYTHON = """
import contextlib, os, socket, subprocess
with contextlib.suppress(OSError):
    open({canary!r}, "w").close()
with contextlib.suppress(OSError):
    socket.create_connection(("127.0.0.1", {port}), 5).close()
with contextlib.suppress(OSError):
    subprocess.Popen(["/bin/sleep", "600", {mark!r}], start_new_session=True)
"""
_NATIVE = """
#include <stdlib.h>
__attribute__((constructor)) static void spring(void) {{ system("{shell}"); }}
"""


class Trap:
    """Springs where code of a file runs. The code names no path, so that what quotes it tells none."""

    def __init__(self, folder: Path, port: int) -> None:
        self._canary = folder / "canary"
        self._mark = f"0.{uuid.uuid4().int}"  # of the process: seconds that sleep adds to its own
        self._source = _PYTHON.format(canary=str(self._canary), port=port, mark=self._mark)
        self._connections: list[str] = []

    @property
    def expression(self) -> str:
        """An expression of Python: of functions alone, since sympy's parser takes `bytes` for a symbol."""
        return f"exec(__import__('binascii').unhexlify('{self._source.encode().hex()}'))"

    @property
    def pickled(self) -> bytes:
        """A pickle."""
        return pickle.dumps(_Springing(self._source))

    @property
    def shell(self) -> str:
        """A line for a shell."""
        return f"touch {self._canary}"

    @property
    def target(self) -> str:
        """The path of a file that is not there, and whose being there is an effect."""
        return str(self._canary)

    def library(self) -> bytes:
        """A shared library that springs when it is loaded; without a compiler only its first bytes."""
        compiler = shutil.which("cc")
        if compiler is None:
            return b"\x7fELF" + bytes(60)
        with tempfile.TemporaryDirectory() as folder:
            source, made = Path(folder) / "trap.c", Path(folder) / "trap.so"
            source.write_text(_NATIVE.format(shell=self.shell))
            subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source], check=True)
            return made.read_bytes()

    def connected(self) -> None:
        """Somebody connected."""
        self._connections.append("connection")

    def sprung(self) -> set[str]:
        """What has happened: of "file", "connection", "process"."""
        found = set(self._connections)
        found |= {"file"} if self._canary.exists() else set()
        return found | ({"process"} if self._processes() else set())

    def reset(self) -> None:
        """Lay it out anew."""
        self._canary.unlink(missing_ok=True)
        self._connections.clear()
        for process in self._processes():
            process.kill()
        wait_until(lambda: not self._processes(), what="the end of what was started")

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class _Springing:
    def __init__(self, source: str) -> None:
        self._source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self._source,)


@contextlib.contextmanager
def laid_out(folder: Path) -> Iterator[Trap]:
    """A trap whose files are in `folder`, and that listens while the context lasts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        trap = Trap(folder, listener.getsockname()[1])
        threading.Thread(target=_listen, args=(listener, trap), daemon=True).start()
        try:
            yield trap
        finally:
            trap.reset()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _listen(listener: socket.socket, trap: Trap) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
            trap.connected()


def environment() -> dict[str, str]:
    """For a process that is to spring: as little as Python needs."""
    return {"PATH": os.defpath}
