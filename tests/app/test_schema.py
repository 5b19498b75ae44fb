"""The served description against the served API, by schemathesis: all of its checks, in bounded time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.server import running_api

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
_SECONDS = 300


@pytest.mark.slow
@pytest.mark.timeout(2 * _SECONDS)
def test_the_api_is_as_it_describes_itself(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("schemathesis"))
    with running_api(tmp_path) as server:
        command = [program, "--config-file", str(CONFIGURATION), "run", f"{server.url}/openapi.json"]
        options = ["--checks", "all", "--max-time", str(_SECONDS), "--request-timeout", "30", "--seed", "1"]
        header = f"Authorization: Bearer {server.secret}"
        done = subprocess.run(
            [*command, "--header", header, *options, "--no-color"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
