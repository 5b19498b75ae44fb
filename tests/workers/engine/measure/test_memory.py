"""Peak memory of inference in a clean process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.workers.engine.measure.onnx_files import matmul
from workers.engine.clean_process import ProcessFailed
from workers.engine.measure.memory import peak_memory

ROOT = Path(__file__).parents[4]
MIB = 1 << 20


def test_peak_memory_grows_by_the_weights(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((1, 1024), np.float32))
    peaks = [
        peak_memory(
            matmul(tmp_path / f"{columns}.onnx", np.ones((1024, columns), np.float32)), tmp_path / "x.npz", 1
        )
        for columns in (256, 16384)  # 1 MiB and 64 MiB of weights
    ]
    assert 0 < peaks[0] < 60 * MIB
    assert peaks[1] - peaks[0] > 48 * MIB


def test_a_model_that_does_not_run_is_a_typed_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((1, 5), np.float32))
    with pytest.raises(ProcessFailed) as caught:
        peak_memory(matmul(tmp_path / "m.onnx", np.ones((4, 4), np.float32)), tmp_path / "x.npz", 1)
    assert caught.value.code == "process_crashed"


@pytest.mark.parametrize("module", ["memory", "reopen", "onnx_session"])
def test_what_runs_in_the_clean_process_imports_no_torch(module: str) -> None:
    script = f"import sys, workers.engine.measure.{module}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
