"""A function of ours in a fresh interpreter.

A fresh process has imported nothing, patched nothing and allocated nothing: what opens there opens for the
user too, and its memory is the model's. Limits of the calling process (`setrlimit`) hold there as well.
"""

import importlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workers.engine.errors import EngineError

_log = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from workers.engine import clean_process as c; c.serve()"
)
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TMPDIR")
_LOGGED_BYTES = 8192


class ProcessFailed(EngineError):
    """The process gave no answer: `process_crashed` or `process_timed_out`."""


def run(function: Callable[..., Any], arguments: Mapping[str, Any], timeout: float) -> Any:
    """Call a module's `function` with JSON `arguments` by name in a new process.

    Returns its JSON result. An `EngineError` raised there is raised here; anything else that goes wrong is a
    `ProcessFailed`. The environment is scrubbed; what the process prints goes to the log. After `timeout`
    seconds it is killed.
    """
    order = {"module": function.__module__, "function": function.__name__, "arguments": dict(arguments)}
    finished = _finish(json.dumps(order | {"seconds": timeout}), timeout)
    if finished.stderr:
        printed = finished.stderr[-_LOGGED_BYTES:].decode(errors="replace")
        _log.info("%s in a process of its own printed: %s", function.__name__, printed)
    return _answer(finished)


def serve() -> None:
    """What the new process does: read the order, call the function, write the answer, leave."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print cannot garble the answer
    order = json.load(sys.stdin)
    signal.alarm(math.ceil(order["seconds"]) + 1)  # ends this process too where its parent was killed
    function = getattr(importlib.import_module(order["module"]), order["function"])
    try:
        reply = {"result": function(**order["arguments"])}
    except EngineError as error:
        reply = {"error": vars(error)}
    with answer:
        json.dump(reply, answer)
    sys.stderr.flush()
    os._exit(0)  # the answer is given: a library that crashes while it is torn down must not take it back


def _finish(order: str, timeout: float) -> subprocess.CompletedProcess[bytes]:
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    try:
        return subprocess.run(
            [sys.executable, "-I", "-c", _START, str(_ROOT)],
            input=order.encode(),
            capture_output=True,
            timeout=timeout,
            env=environment | {"LC_ALL": "C.UTF-8", "PATH": os.defpath},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        detail = f"A check in a process of its own took longer than {timeout:g} seconds."
        raise ProcessFailed("process_timed_out", detail, hint="Try a smaller model.") from error
    except OSError as error:
        _log.warning("no process could be started: %s", error)
        raise ProcessFailed("process_crashed", "A process for a check could not be started.") from error


def _answer(finished: subprocess.CompletedProcess[bytes]) -> Any:
    try:
        reply = json.loads(finished.stdout) if finished.returncode == 0 else {}
    except ValueError:
        reply = {}
    if "error" in reply:
        raise EngineError(**reply["error"])
    if "result" not in reply:
        detail = (
            f"A check in a process of its own ended without an answer (exit status {finished.returncode})."
        )
        raise ProcessFailed("process_crashed", detail, hint="The model may need more memory than is allowed.")
    return reply["result"]
