"""`rankfold serve`: the whole service on one machine, its parts started, watched and stopped together."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from app.tether import tethered

RUN_FILE = "run.json"
_TICK_SECONDS = 0.2
_STEADY_SECONDS = 10.0  # a part that ran so long is started again at once when it dies
_LONGEST_PAUSE_SECONDS = 10.0
_STOP_SECONDS = 20.0


class CannotStart(Exception):
    """The service cannot start here; the message says why and what to do."""


@dataclass(frozen=True)
class Part:
    """A program of the service. Parts start in order, each when the one before is `ready`."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True


def say(line: str) -> None:
    """A line for whoever started the service."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def only_instance(folder: Path) -> Iterator[None]:
    """Hold the data folder; raises `CannotStart` when another instance does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CannotStart(
                f"another rankfold serves the data in {folder}: stop it, or set RANKFOLD_DATA_DIR"
            ) from error
        yield


def demand_free(host: str, port: int) -> None:
    """Raise `CannotStart` when the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {host}:{port} ({error.strerror}): set RANKFOLD_HOST or RANKFOLD_PORT"
            ) from error


class Supervisor:
    """Keeps the parts running until it is told to stop; `folder/run.json` names their processes."""

    def __init__(self, parts: Sequence[Part], folder: Path) -> None:
        self._running = [_Running(part) for part in parts]
        self._run_file = folder / RUN_FILE
        self._stopping = False

    def run(self, when_ready: Callable[[], None]) -> None:
        """Start everything, call `when_ready`, watch until SIGINT or SIGTERM, stop everything."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop_soon)
        try:
            self._start()
            if not self._stopping:
                when_ready()
            while not self._stopping:
                self._watch()
                time.sleep(_TICK_SECONDS)
        finally:
            self._stop()

    def _stop_soon(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self) -> None:
        for running in self._running:
            if self._stopping:
                return
            running.start()
            self._note()
            self._await(running)

    def _await(self, running: "_Running") -> None:
        """A part that dies before it was ever ready would only do so again: `CannotStart`."""
        while not self._stopping and not running.part.ready():
            if running.has_ended():
                raise CannotStart(f"{running.part.name} did not start: the lines above say why")
            time.sleep(_TICK_SECONDS)

    def _watch(self) -> None:
        for running in self._running:
            if running.revive():
                self._note()

    def _note(self) -> None:
        pids = {running.part.name: running.pid for running in self._running if running.pid}
        draft = self._run_file.with_suffix(".new")
        draft.write_text(json.dumps({"supervisor": os.getpid(), **pids}))
        draft.replace(self._run_file)

    def _stop(self) -> None:
        """The last started first: the broker outlives those who talk to it."""
        say("stopping")
        first, *others = self._running
        for group in (others, [first]):
            for running in group:
                running.terminate()
            deadline = time.monotonic() + _STOP_SECONDS
            for running in group:
                running.join(deadline)
        self._run_file.unlink(missing_ok=True)
        say("stopped")


class _Running:
    """A part's process, or the lack of one."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._process: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._pause = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self._process = subprocess.Popen(
            tethered(self.part.command),
            env=os.environ | dict(self.part.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the supervisor's: it stops the parts in order
            text=True,
            errors="replace",
        )
        self._started = time.monotonic()
        threading.Thread(target=self._relay, args=(self._process.stdout,), daemon=True).start()

    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def revive(self) -> bool:
        """Start the part anew if it has died, after a pause that grows while it keeps dying."""
        if self._process is None or (status := self._process.poll()) is None:
            return False
        lived = time.monotonic() - self._started
        if lived < self._pause:
            return False
        self._pause = 0.5 if lived > _STEADY_SECONDS else min(2 * self._pause + 0.5, _LONGEST_PAUSE_SECONDS)
        say(f"{self.part.name} ended ({_how(status)}): starting it again")
        self._signal(signal.SIGKILL)  # what it may have left in its group
        self.start()
        return True

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def join(self, deadline: float) -> None:
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _relay(self, lines: IO[str]) -> None:
        for line in lines:
            say(f"{self.part.name:>6} | {line.rstrip()}")


def _how(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name
