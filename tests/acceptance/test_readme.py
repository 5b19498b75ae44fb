"""The walk-through of the README, typed in as it stands."""

import re
import subprocess
from pathlib import Path

import onnxruntime
import pytest

from app.contract.report import Report
from tests.acceptance.conftest import serving

ROOT = Path(__file__).parents[2]


def blocks() -> str:
    section = (ROOT / "README.md").read_text().split("## With curl")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_walk_through_compresses_the_example(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with serving(tmp_path) as service:
        script = "set -euo pipefail\n" + blocks().replace("http://127.0.0.1:8000", service.url)
        done = subprocess.run(
            ["/bin/bash", "-c", script],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=800,
        )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout.splitlines()
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    assert report.candidates[0].macs <= 0.5 * report.original.macs
    (onnx,) = tmp_path.glob("*.onnx")
    assert onnxruntime.InferenceSession(onnx).get_inputs()[0].shape[1:] == [1, 28, 28]
