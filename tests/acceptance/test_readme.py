"""The walk-through of the README, typed in as it stands."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import onnxruntime
import pytest

from app.contract.report import Report
from tests.processes import free_port, running, wait_until

ROOT = Path(__file__).parents[2]


def blocks() -> str:
    section = (ROOT / "README.md").read_text().split("## With curl")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL))


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """`rankfold serve` with its state in the folder's `var`, as `make serve` has it in a checkout."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RANKFOLD_")}
    environment |= {"RANKFOLD_PORT": url.rsplit(":", 1)[1], "RANKFOLD_DATA_DIR": str(folder / "var")}
    command = [sys.executable, "-m", "app.cli", "serve"]
    with running(command, folder / "log", environment):
        wait_until(lambda: is_ready(url), 60, "the service's readiness")
        yield url


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_walk_through_compresses_the_example(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with service(tmp_path) as url:
        script = "set -euo pipefail\n" + blocks().replace("http://127.0.0.1:8000", url)
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
