"""A job that is killed in any stage ends with the artifacts of one that was left alone, byte for byte."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.contract.status import Stage

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_CHILD = """
import sys
from pathlib import Path
import torch
from benchmarks.jobs import ignore, job_order
from workers.stages import pipeline

torch.set_num_threads(1)
workspace, example = map(Path, sys.argv[1:])
files = {"model": example / "model.pt2", "train": example / "train.npz", "test": example / "test.npz"}
spec = {"task": "classification", "target": {"keep": 0.5}, "finetune": {"epochs": 2, "stages": 2}}
pipeline.run(job_order(spec, files, workspace), workspace, ignore)
"""
_SECONDS = 0.5  # into a stage, when it is killed


def _start(workspace: Path) -> subprocess.Popen[bytes]:
    workspace.mkdir(parents=True, exist_ok=True)
    example = _ROOT / "examples" / "fashion"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _CHILD, str(workspace), str(example)],
        cwd=_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _artifacts(workspace: Path) -> dict[str, str]:
    files = (workspace / "artifacts").glob("candidate-*")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The artifacts of a job that nothing happened to."""
    workspace = tmp_path_factory.mktemp("undisturbed")
    assert _start(workspace).wait(600) == 0
    return _artifacts(workspace)


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.INSPECT])
def test_killed_in_a_stage_it_resumes_and_ends_alike(
    stage: Stage, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    job = _start(tmp_path)
    while not (tmp_path / "stages" / stage).exists():
        assert job.poll() is None, f"the job ended before its stage {stage}"
        time.sleep(0.02)
    time.sleep(_SECONDS)
    job.send_signal(signal.SIGKILL)
    assert job.wait(60) == -signal.SIGKILL
    assert _start(tmp_path).wait(600) == 0
    assert _artifacts(tmp_path) == undisturbed
