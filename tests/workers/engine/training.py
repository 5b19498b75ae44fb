"""A small training with a checkpoint, as a process of its own that a test may kill.

    python -m tests.workers.engine.training FOLDER [SAVES]

Prints a line for every step. With SAVES it kills itself in its save of that number, when the new file is
written and has not taken the old one's place.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.workers.engine.networks import BATCH, image_network, seeded
from workers.engine.checkpoint import Checkpoint, fingerprint
from workers.engine.data import Examples
from workers.engine.finetune import Judged, Schedule, Trained, finetune
from workers.engine.formats import pt2
from workers.engine.graph.network import Input, Network
from workers.engine.losses import make_loss

SCHEDULE = Schedule(epochs=4, learning_rate=3e-3, batch_size=16, seed=1)
_LOSSES = [5.0, 4.0, 2.0, 3.0, 3.0]  # the second epoch is kept


def networks() -> tuple[Network, Network]:
    """Student and teacher, with all that has a state: weights, statistics, dropout."""
    seeded()
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.2), nn.Flatten(), nn.Linear(216, 3)]
    teacher = image_network(nn.Sequential(*layers))
    student = teacher.copy()
    with torch.no_grad():
        student.module.get_parameter("4.weight").mul_(0.5)
    return student, teacher


def examples() -> Examples:
    """Rows without targets."""
    x = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
    return Examples((x,), None, (Input("x", torch.float32, (BATCH, 3, 8, 8)),))


def checkpoint(folder: Path, schedule: Schedule = SCHEDULE) -> Checkpoint:
    """The training's, where `schedule` is its own."""
    return Checkpoint(folder / "state", fingerprint(networks(), [examples()], repr(schedule)))


def train(folder: Path, schedule: Schedule = SCHEDULE, *, say: bool = False) -> tuple[Network, Trained]:
    """Train, or go on; the student and how it went."""
    student, teacher = networks()

    def judge(network: Network) -> Judged:
        # What it says depends on how far the network is, not on how often it was asked.
        epoch = int(network.module.get_buffer("1.num_batches_tracked")) // 4
        return Judged(loss=_LOSSES[epoch])

    trained = finetune(
        student,
        teacher,
        examples(),
        schedule,
        make_loss("outputs", "logits"),
        judge=judge,
        advance=lambda done, _: print(done, flush=True) if say else None,  # noqa: T201 -- it is for the test
        checkpoint=checkpoint(folder, schedule),
    )
    return student, trained


def main() -> None:
    """Train, and write what came of it."""
    folder, saves = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    torch.set_num_threads(1)
    left = iter(range(saves - 1, -1, -1))

    def replace(self: Path, target: Path) -> None:
        if next(left, -1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os.replace(self, target)  # noqa: PTH105 -- in the place of the method

    Path.replace = replace  # type: ignore[assignment, method-assign]
    student, trained = train(folder, say=True)
    pt2.write(student, folder / "student.pt2")
    (folder / "curve.json").write_text(json.dumps([trained.kept, *map(str, trained.curve)]))


if __name__ == "__main__":
    main()
