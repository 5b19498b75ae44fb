"""Changed files for every reader: each is read or refused, and nothing hangs or ends the process.

`RANKFOLD_FUZZ_SECONDS` says for how long each reader is tried in `make test-slow`.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workers.engine.fuzzer import READERS

_SECONDS = int(os.environ.get("RANKFOLD_FUZZ_SECONDS", "600"))
_START_SECONDS = 240  # for imports and the last file, on a busy machine


def _fuzz(reader: str, seconds: float, seed: int, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.workers.engine.fuzzer", reader, str(folder)]
    done = subprocess.run(
        [*command, f"--seconds={seconds}", f"--seed={seed}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + _START_SECONDS,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    assert done.returncode == 0, f"{reader}, seed {seed}: see {folder / 'case'}\n{done.stderr[-4000:]}"
    assert "read" in done.stdout, "no file was read: what is changed is no longer a file"


@pytest.mark.parametrize("reader", ["npz", "safetensors"])
def test_changed_files_are_read_or_refused(reader: str, tmp_path: Path) -> None:
    _fuzz(reader, 2.0, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(_SECONDS + _START_SECONDS + 60)
@pytest.mark.parametrize("reader", READERS)
def test_changed_files_are_read_or_refused_for_long(reader: str, tmp_path: Path) -> None:
    seed = time.time_ns() % (1 << 31)
    _fuzz(reader, float(_SECONDS), seed, tmp_path)
