"""A function of ours in a fresh interpreter.

A fresh process has imported nothing, patched nothing and allocated nothing: what opens there opens for the
user too, and its memory is the model's. Limits of the calling process (`setrlimit`) hold there as well.

The interpreter, once started, forks for every call: whoever is to lose the right to start programs can
`prepare` it beforehand.
"""

import contextlib
import importlib
import json
import logging
import math
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, NamedTuple

from workers.engine.errors import EngineError

_log = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from workers.engine import clean_process as c; c.serve()"
)
_KEPT_VARIABLES = ("HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY", "TMPDIR", "USER")
_LOGGED_BYTES = 8192
_LONGEST_ANSWER = 1 << 20  # bytes
_LEAVING_SECONDS = 5.0  # which a process has to end after its answer


class ProcessFailed(EngineError):
    """The process gave no answer: `process_crashed` or `process_timed_out`."""


class Call(NamedTuple):
    """A module's `function`, and JSON `arguments` by name."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]


def prepare(interpreter: Call, each: Call) -> None:
    """Start now the interpreter that all later `run`s of this process use.

    It does the call `interpreter` before it hears of any function, and every process that it forks does the
    call `each` before it looks at its own. Raises `OSError` where no program can be started.
    """
    _prepared.append(_Interpreter(interpreter, each))


def run(function: Callable[..., Any], arguments: Mapping[str, Any], timeout: float) -> Any:
    """Call a module's `function` with JSON `arguments` by name in a new process.

    Returns its JSON result. An `EngineError` raised there is raised here; anything else that goes wrong is a
    `ProcessFailed`. The environment is scrubbed; what the process prints goes to the log. After `timeout`
    seconds it is killed.
    """
    try:
        with _interpreter() as interpreter:
            ended = interpreter.call(Call(function, arguments), timeout)
    except OSError as error:
        _log.warning("no process could be started: %s", error)
        raise ProcessFailed("process_crashed", "A process for a check could not be started.") from error
    if ended["printed"]:
        _log.info("%s in a process of its own printed: %s", function.__name__, ended["printed"])
    return _result(ended, timeout)


class _Interpreter:
    """The one that forks, seen from here: a line goes in for every call, and a line comes out."""

    def __init__(self, interpreter: Call | None = None, each: Call | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment() | {"LC_ALL": "C.UTF-8", "PATH": os.defpath},
        )
        self._say([interpreter and _named(interpreter), each and _named(each)])

    def call(self, call: Call, timeout: float) -> dict[str, Any]:
        """How it ended. Raises `OSError` where the interpreter itself is gone."""
        self._say(_named(call) | {"seconds": timeout, "environment": _environment()})
        answers = self._pipe(self._process.stdout)
        if not select.select([answers], [], [], timeout + 2 * _LEAVING_SECONDS)[0]:
            self.close()
        line = b"" if answers.closed else answers.readline()
        if not line:
            raise BrokenPipeError("the interpreter for clean processes has ended")
        ended: dict[str, Any] = json.loads(line)
        return ended

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what it was never told
                self._pipe(pipe).close()

    def _say(self, what: Any) -> None:
        pipe = self._pipe(self._process.stdin)
        if pipe.closed:
            raise BrokenPipeError("the interpreter for clean processes was ended")
        pipe.write(json.dumps(what).encode() + b"\n")
        pipe.flush()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None  # noqa: S101 -- both were asked for
        return pipe


_prepared: list[_Interpreter] = []


@contextlib.contextmanager
def _interpreter() -> Iterator[_Interpreter]:
    if _prepared:
        yield _prepared[-1]
        return
    interpreter = _Interpreter()
    try:
        yield interpreter
    finally:
        interpreter.close()


def _named(call: Call) -> dict[str, Any]:
    function, arguments = call
    return {"module": function.__module__, "function": function.__name__, "arguments": dict(arguments)}


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}


def serve() -> None:
    """What the interpreter does: fork for every line it reads, and write how that ended."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries that print cannot garble the answers
    prepared, each = json.loads(sys.stdin.readline())
    if prepared is not None:
        _do(prepared)
    for order in sys.stdin:
        answers.write(json.dumps(_attend(order, each)) + "\n")


def _attend(order: str, each: Any) -> dict[str, Any]:
    """Have an order done in a process of its own, whose answer may be anything."""
    fork = multiprocessing.get_context("fork")
    answers, answer = fork.Pipe(duplex=False)
    seconds = json.loads(order)["seconds"]
    with tempfile.TemporaryFile() as printed:
        process = fork.Process(target=_obey, args=(order, each, answer, printed.fileno()))
        process.start()
        answer.close()
        timed_out = not answers.poll(seconds)
        text = None if timed_out else _received(answers)
        process.join(0 if timed_out else _LEAVING_SECONDS)
        process.kill()
        process.join()
        answers.close()
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - _LOGGED_BYTES))
        tail = printed.read().decode(errors="replace")
    return {"answer": text, "printed": tail, "status": process.exitcode, "timed_out": timed_out}


def _received(answers: Connection) -> str | None:
    try:
        return answers.recv_bytes(_LONGEST_ANSWER).decode(errors="replace")
    except (EOFError, OSError):
        return None


def _obey(order: str, each: Any, answer: Connection, printed: int) -> None:
    """What the new process does: call the function, send what came of it, leave."""
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    if each is not None:
        _do(each)
    wanted = json.loads(order)
    signal.alarm(
        math.ceil(wanted["seconds"]) + 1
    )  # ends this process too where the one that forks was killed
    os.environ.update(wanted["environment"])
    try:
        reply = {"result": _do(wanted)}
    except EngineError as error:
        reply = {"error": vars(error)}
    answer.send_bytes(json.dumps(reply).encode())
    sys.stderr.flush()
    os._exit(0)  # the answer is given: a library that crashes while it is torn down must not take it back


def _do(named: Mapping[str, Any]) -> Any:
    return getattr(importlib.import_module(named["module"]), named["function"])(**named["arguments"])


def _result(ended: Mapping[str, Any], timeout: float) -> Any:
    if ended["timed_out"]:
        detail = f"A check in a process of its own took longer than {timeout:g} seconds."
        raise ProcessFailed("process_timed_out", detail, hint="Try a smaller model.")
    try:
        reply = json.loads(ended["answer"] or "{}")
    except ValueError:
        reply = {}
    if "error" in reply:
        raise EngineError(**reply["error"])
    if "result" not in reply:
        detail = f"A check in a process of its own ended without an answer (exit status {ended['status']})."
        raise ProcessFailed("process_crashed", detail, hint="The model may need more memory than is allowed.")
    return reply["result"]
