"""A job's real process with a pipeline whose behaviour the job's seed chooses."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.contract.problem import Notice
from app.contract.status import Stage
from tests.workers.documents import REPORT, SUMMARY
from workers.child import Emit, main
from workers.engine.errors import EngineError
from workers.messages import Advanced, Noticed, Order, StageFinished, StageSaved, StageStarted, Succeeded

WORK, REFUSE, CRASH, EAT_MEMORY, DIE, BABBLE, LINK, HANG, TELL_ENVIRONMENT, SAVE = range(10)
FILL_DISK, HIDE_ON_DISK, LITTER, BURN, CROWD, CHATTER = range(10, 16)
SLOW = 100  # seeds from here on: hundredths of a second that a stage takes


def run(order: Order, workspace: Path, emit: Emit) -> None:
    """Do what the seed says, and otherwise go through the stages."""
    seed = order.spec.seed if order.spec else WORK
    if seed in _MISBEHAVE:
        _MISBEHAVE[seed](workspace, emit)
    if order.kind == "compress":
        _stages(order, workspace, emit, (seed - SLOW) / 100 if seed >= SLOW else 0.0)
    (workspace / "result.json").write_text(json.dumps(REPORT if order.kind == "compress" else SUMMARY))
    emit(Succeeded())


def _stages(order: Order, workspace: Path, emit: Emit, seconds: float) -> None:
    """Each stage notes its attempt, after those before it, which must be there."""
    sys.stdout.write("a library that prints must not be taken for a message\n")
    history: list[list[object]] = []
    for number, stage in enumerate(Stage):
        file = workspace / "stages" / stage / "history.json"
        if stage not in order.done:
            emit(StageStarted(stage=stage))
            time.sleep(seconds)
            file.parent.mkdir(exist_ok=True)
            if stage is Stage.FINETUNE and order.spec and order.spec.seed == SAVE:
                _go_on(file.with_name("saved.json"), emit)
            file.write_text(json.dumps([*history, [stage, order.attempt]]))
            emit(StageFinished(stage=stage))
            emit(Noticed(notice=Notice(code="seen", detail=stage)))
        history = json.loads(file.read_text())
        emit(Advanced(fraction=(number + 1) / len(Stage), eta_seconds=1.0))
    (workspace / "artifacts" / "candidate-0.pt2").write_text(json.dumps(history))


def _go_on(saved: Path, emit: Emit) -> None:
    """One step of three, then die; an attempt goes on with what an earlier one saved."""
    steps = json.loads(saved.read_text()) + 1 if saved.exists() else 1
    saved.write_text(json.dumps(steps))
    if steps < 3:
        emit(StageSaved(stage=Stage.FINETUNE))
        os.kill(os.getpid(), signal.SIGKILL)


def _refuse(_workspace: Path, _emit: Emit) -> None:
    raise EngineError("wrong_input", "The data has no array named x.", field="data.train", hint="Add x.")


def _crash(workspace: Path, _emit: Emit) -> None:
    raise RuntimeError(f"a bug in {workspace}")


def _eat_memory(_workspace: Path, _emit: Emit) -> None:
    eaten = [bytearray(1 << 26) for _ in range(1 << 14)]
    raise AssertionError(f"{len(eaten)} pieces were not refused")


def _die(_workspace: Path, _emit: Emit) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _babble(_workspace: Path, _emit: Emit) -> None:
    for descriptor in range(3, 16):  # one of them is the private channel
        try:
            os.write(descriptor, b'{"type": "nonsense"}\n')
        except OSError:
            continue


def _link(workspace: Path, _emit: Emit) -> None:
    (workspace / "artifacts" / "secret.txt").symlink_to("/etc/passwd")


def _hang(_workspace: Path, emit: Emit) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    emit(StageStarted(stage=Stage.INSPECT))
    while True:
        time.sleep(1)


def _tell_environment(_workspace: Path, _emit: Emit) -> None:
    raise EngineError("environment", json.dumps(dict(os.environ)))


def _fill_disk(workspace: Path, _emit: Emit) -> None:
    for number in range(1 << 10):
        (workspace / "tmp" / f"{number}").write_bytes(bytes(1 << 20))
        time.sleep(0.01)
    time.sleep(60)


def _hide_on_disk(workspace: Path, _emit: Emit) -> None:
    """Files that are open still, and in no folder."""
    path = workspace / "tmp" / "hidden"
    hidden = []
    for _ in range(64):
        hidden.append(path.open("wb"))
        path.unlink()
        hidden[-1].write(bytes(1 << 20))
        hidden[-1].flush()
    time.sleep(60)


def _litter(workspace: Path, _emit: Emit) -> None:
    for number in range(1 << 20):
        (workspace / "tmp" / f"{number}").touch()


def _burn(_workspace: Path, _emit: Emit) -> None:
    while True:
        pass


def _crowd(_workspace: Path, _emit: Emit) -> None:
    threading.stack_size(1 << 16)
    for _ in range(1 << 14):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def _chatter(_workspace: Path, _emit: Emit) -> None:
    for _ in range(1 << 12):
        sys.stderr.write("\x1b[2J" + 1023 * "x" + "\n")
    raise EngineError("chattered", "It was said.")


_MISBEHAVE: dict[int, Callable[[Path, Emit], None]] = {
    REFUSE: _refuse,
    CRASH: _crash,
    EAT_MEMORY: _eat_memory,
    DIE: _die,
    BABBLE: _babble,
    LINK: _link,
    HANG: _hang,
    TELL_ENVIRONMENT: _tell_environment,
    FILL_DISK: _fill_disk,
    HIDE_ON_DISK: _hide_on_disk,
    LITTER: _litter,
    BURN: _burn,
    CROWD: _crowd,
    CHATTER: _chatter,
}

if __name__ == "__main__":
    main(run)
