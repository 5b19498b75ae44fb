"""A job's child process: started without secrets, heard line by line, ended with all its descendants."""

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from workers.messages import Message, parse

_log = logging.getLogger(__name__)
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "VIRTUAL_ENV")
_LONGEST_LINE = 1 << 20  # bytes
_LONGEST_PRINTED = 4096
_MOST_PRINTED = 1 << 20
_TERM_SECONDS = 3.0
_EXIT_SECONDS = 30.0


class ChildProcess:
    """`command` in a session of its own, with none of the server's secrets in its environment."""

    def __init__(self, command: Sequence[str], workspace: Path) -> None:
        # Libraries keep their caches where these say; one without a name would look for the user's.
        home = {"HOME": str(workspace), "TMPDIR": str(workspace / "tmp"), "USER": "rankfold"}
        # Else ONNX Runtime looks up its maker's server, and keeps a database in the home folder.
        home["ORT_DISABLE_TELEMETRY"] = "1"
        # Arrow's own allocator reserves a gibibyte of address space, which is what bounds a job's memory.
        home["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=passed_on | home,
            start_new_session=True,
        )
        self._relay = threading.Thread(target=self._log_what_it_prints, daemon=True)
        self._relay.start()

    @property
    def pid(self) -> int:
        """The number of the child's process."""
        return self._process.pid

    def messages(self, tick_seconds: float) -> Iterator[Message | None]:
        """What the child says, and None at least every `tick_seconds`, until it has ended.

        Raises `ValueError` for a line that is no message.
        """
        assert self._process.stdout is not None  # noqa: S101 -- it is a pipe
        pipe, rest = self._process.stdout.fileno(), b""
        while True:
            ended = _has_ended(self._process.pid)
            if select.select([pipe], [], [], 0 if ended else tick_seconds)[0]:
                chunk = os.read(pipe, 1 << 16)
                if not chunk:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (parse(line.decode()) for line in lines)
                if len(rest) > _LONGEST_LINE:
                    raise ValueError("a job's process sent a line without an end")
            elif ended:  # a descendant may hold the pipe open
                return
            yield None

    def wait(self, seconds: float = _EXIT_SECONDS) -> int:
        """The exit status, negative for a signal; a child that takes longer than `seconds` is killed.

        Whatever it started is killed in any case.
        """
        deadline = time.monotonic() + seconds
        while not _has_ended(self._process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        # The group is signalled before its leader is reaped: its number cannot have been given away yet.
        self._signal(signal.SIGKILL)
        status = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._relay.join(_EXIT_SECONDS)
        return status

    def stop(self) -> None:
        """End the child and all its descendants: TERM, and after 3 s KILL. Harmless when it has ended."""
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            self.wait(_TERM_SECONDS)

    def _log_what_it_prints(self) -> None:
        """A pipe and not the worker's own descriptor, which may be a terminal or a file to overwrite."""
        assert self._process.stderr is not None  # noqa: S101 -- it is a pipe
        with self._process.stderr as pipe:
            left = _MOST_PRINTED
            while line := pipe.readline(_LONGEST_PRINTED):
                if left > 0:
                    text = line.decode(errors="replace").rstrip()
                    _log.info("a job printed: %s", text.encode("unicode_escape").decode())
                left -= len(line)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
            os.killpg(self._process.pid, number)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
