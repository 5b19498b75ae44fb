"""A job's process: limited, locked in, tethered to its worker, and given a folder and nothing else.

What it says goes over a private descriptor, so that no library's print can pass for a message. A problem of
the user's input is a message; everything else is an exit status, and a traceback in the worker's log alone.
"""

import argparse
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.contract.problem import Problem
from app.contract.spec import Device
from app.tether import die_with
from workers.engine import clean_process
from workers.engine.clean_process import Call
from workers.engine.errors import EngineError
from workers.messages import Failed, Message, Order
from workers.sandbox.lock import lock

OUT_OF_MEMORY = 71  # exit statuses
INTERNAL_ERROR = 70
NEW_OBJECTS = 100_000
"""How many there are between two looks for cycles."""

_OPEN_FILES = 1024
_MORE_TASKS = 1 << 14  # than this user has here: elsewhere on the machine others of its number may run
_CPU_GRACE_SECONDS = 10

Emit = Callable[[Message], None]
Run = Callable[[Order, Path, Emit], None]


def main(run: Run | None = None) -> None:
    """Do what the workspace's order says; `run` stands for the pipeline in tests. Does not return."""
    arguments = _arguments()
    die_with(arguments.parent, signal.SIGKILL)
    emit = _private_channel()
    order = Order.model_validate_json((arguments.workspace / "order.json").read_text())
    _limit(arguments, order)
    tune(order.threads)
    os.chdir(arguments.workspace)
    if arguments.sandbox != "off":
        _lock_in(arguments, order)
    sys.exit(_work(run, order, arguments.workspace, emit))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--cpu-seconds", type=int, required=True)
    parser.add_argument("--file-bytes", type=int, required=True)
    parser.add_argument("--sandbox", choices=("require", "auto", "off"), required=True)
    return parser.parse_args()


def _private_channel() -> Emit:
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(message: Message) -> None:
        channel.write(message.model_dump_json() + "\n")

    return emit


def _limit(arguments: argparse.Namespace, order: Order) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: arguments.file_bytes,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
    }
    if sys.platform == "linux":
        limits[resource.RLIMIT_NPROC] = _tasks_of_this_user() + _MORE_TASKS
    # CUDA reserves more address space than any machine has memory.
    if arguments.memory_bytes and not _may_use_cuda(order):
        limits[resource.RLIMIT_AS] = arguments.memory_bytes
    for limit, value in limits.items():
        most = _least(value, resource.getrlimit(limit)[1])
        resource.setrlimit(limit, (most, most))
    # At the first it is told why, at the second killed: at one and the same it would not be told.
    most = _least(arguments.cpu_seconds + _CPU_GRACE_SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1])
    resource.setrlimit(resource.RLIMIT_CPU, (min(arguments.cpu_seconds, most), most))


def _least(value: int, hard: int) -> int:
    """Nobody can raise what is the hard limit already."""
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _tasks_of_this_user() -> int:
    """Processes and threads, which Linux counts together."""
    count = 0
    for process in Path("/proc").glob("[0-9]*/task"):
        with suppress(OSError):  # it has ended meanwhile
            if process.stat().st_uid == os.getuid():
                count += sum(1 for _ in process.iterdir())
    return count


def _lock_in(arguments: argparse.Namespace, order: Order) -> None:
    """Before torch is there, and whatever else starts threads or might be talked into something."""
    terms = {
        "scratch": str(arguments.workspace),
        "required": arguments.sandbox == "require",
        "gpu": _may_use_cuda(order),
    }
    if order.kind != "inspect_dataset":
        # No program can be started afterwards, and networks are run by other runtimes in a clean process.
        forking = Call(lock, {**terms, "parent": os.getpid(), "forks": True})
        clean_process.prepare(forking, each=Call(lock, terms))
    lock(**terms, parent=arguments.parent)


def _may_use_cuda(order: Order) -> bool:
    device = order.spec.device if order.spec else Device.CPU
    return device is Device.CUDA or (device is Device.AUTO and Path("/dev/nvidiactl").exists())


def tune(threads: int) -> None:
    """Before torch is imported: it and its libraries read these once."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    # Threads that wait by spinning for long are half as fast beside another busy process, those that never do
    # are a fifth slower alone; a short spin, which libgomp alone knows, costs a twentieth in both cases.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ["GOMP_SPINCOUNT"] = "1000"
    # Large tensors in large pages, where the system has them: 5 % faster, in up to 15 % less memory.
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
    # What torch imports are hundreds of thousands of objects that stay. A look for cycles after every 700 new
    # ones is a fifth of the time that the import takes, and a tenth of a trace.
    gc.set_threshold(NEW_OBJECTS)
    # Torch's compiler would import a client of the broker, for caches that no job has.
    sys.modules["redis"] = None  # type: ignore[assignment]


def _work(run: Run | None, order: Order, workspace: Path, emit: Emit) -> int:
    try:
        (run or _pipeline())(order, workspace, emit)
    except EngineError as error:
        emit(Failed(problem=_problem(error)))
    except Exception as error:
        traceback.print_exc()
        return OUT_OF_MEMORY if _is_out_of_memory(error) else INTERNAL_ERROR
    return 0


def _pipeline() -> Run:
    from workers.stages import pipeline  # noqa: PLC0415 -- torch comes with it, after the limits

    return pipeline.run


def _problem(error: EngineError) -> Problem:
    return Problem.of(error.code, error.detail, hint=error.hint, layer=error.layer, field=error.field)


def _is_out_of_memory(error: Exception) -> bool:
    """torch says it in three ways: `MemoryError`, its own `OutOfMemoryError` and a bare `RuntimeError`; ONNX
    Runtime in a fourth."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("can't allocate memory", "bad_alloc", "bad allocation")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


if __name__ == "__main__":
    main()
