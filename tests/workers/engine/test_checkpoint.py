"""A training that is killed and goes on ends as if nothing had happened; what is not its own it ignores."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.workers.engine import training
from workers.engine.checkpoint import Checkpoint, fingerprint
from workers.engine.data import Examples

_STEPS = 4  # of an epoch


def _start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.workers.engine.training", str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[3]
    )


def _steps(folder: Path, *options: str, kill_at: int | None = None) -> list[int]:
    """The steps that a process did before it ended, or was killed at one of them."""
    done = []
    with _start(folder, *options) as process:
        assert process.stdout is not None
        for line in process.stdout:
            done.append(int(line))
            if done[-1] == kill_at:
                process.kill()
    assert process.returncode == (-signal.SIGKILL if kill_at or options else 0)
    return done


def _hashes(folder: Path) -> list[str]:
    return [
        hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("student.pt2", "curve.json")
    ]


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    assert _steps(undisturbed) == [*range(1, 4 * _STEPS + 1)]
    assert _steps(killed, kill_at=2)[0] == 1  # before there is anything to go on from
    assert _steps(killed, kill_at=_STEPS + 3)[0] == 1
    assert _steps(killed, "2")[0] == _STEPS + 1  # between the third state and its name
    assert _steps(killed)[0] == 2 * _STEPS + 1
    assert _hashes(killed) == _hashes(undisturbed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that is done."""
    folder = tmp_path_factory.mktemp("finished")
    training.train(folder)
    return folder


def test_a_state_is_all_there_is_to_a_training(finished: Path) -> None:
    state = training.checkpoint(finished).load()
    assert state is not None
    assert state["counts"] == [4 * _STEPS, 4]
    assert not state["optimizer"]["state"][0]["exp_avg"].eq(0).all()


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.98])
def test_a_damaged_state_is_ignored(finished: Path, tmp_path: Path, place: float) -> None:
    content = bytearray((finished / "state").read_bytes())
    for changed in (content[: int(place * len(content))], _flipped(content, int(place * len(content)))):
        (tmp_path / "state").write_bytes(changed)
        found = training.checkpoint(tmp_path).load()
        assert found is None or _same(found, training.checkpoint(finished).load())


def _flipped(content: bytearray, start: int) -> bytes:
    flipped = bytes(255 - value for value in content[start : start + 64])
    return bytes(content[:start] + flipped + content[start + 64 :])


def _same(one: object, other: object) -> bool:
    """Padding of an archive may be damaged: it says nothing."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def test_another_schedules_state_is_ignored(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes((finished / "state").read_bytes())
    slower = replace(training.SCHEDULE, learning_rate=1e-4, epochs=2)
    assert training.checkpoint(tmp_path, slower).load() is None
    _, trained = training.train(tmp_path, slower)
    assert (trained.epochs, trained.curve[-1].step) == (2, 2 * _STEPS)


def test_a_fingerprint_tells_weights_statistics_rows_and_words_apart() -> None:
    student, teacher = training.networks()
    rows = training.examples()
    known = {fingerprint((student, teacher), [rows], "a")}
    assert fingerprint(training.networks(), [training.examples()], "a") in known
    known |= {fingerprint((teacher, student), [rows], "a"), fingerprint((student, teacher), [rows], "a", "b")}
    other = rows.take(np.roll(np.arange(len(rows)), -1))
    known.add(fingerprint((student, teacher), [other], "a"))
    labelled = Examples(rows.inputs, np.zeros(len(rows)), rows.specs)
    known.add(fingerprint((student, teacher), [labelled], "a"))
    for path in ("0.bias", "1.running_mean"):
        changed = student.copy()
        changed.module.state_dict()[path].data[0] += 1
        known.add(fingerprint((changed, teacher), [rows], "a"))
    assert len(known) == 7


def test_nothing_saved_is_nothing_loaded_and_what_is_removed_is_gone(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "state", "a")
    assert kept.load() is None
    kept.remove()
    kept.save({"x": torch.ones(2)})
    assert kept.load() is not None
    kept.remove()
    assert list(tmp_path.iterdir()) == []
