"""A real API process: uvicorn on a free port, with its own data folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.db.migrate import upgrade
from app.settings import Settings
from tests.processes import free_port, running, wait_until


@dataclass(frozen=True)
class Server:
    """A running API."""

    url: str
    secret: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def headers(self) -> dict[str, str]:
        """The header that lets a request in."""
        return {"Authorization": f"Bearer {self.secret}"}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def peak_memory(self) -> int:
        """The most bytes of memory that the process ever held."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the kernel does not tell")

    def files(self) -> list[str]:
        """What the blob store and the spool hold."""
        places = (self.folder / "blobs", self.folder / "spool")
        return [path.name for place in places for path in place.rglob("*") if path.is_file()]


@contextmanager
def running_api(folder: Path, **environment: str) -> Iterator[Server]:
    """A migrated, ready API with a key, killed at the end."""
    upgrade(Settings(data_dir=folder).resolved_database_url)
    url, secret = f"http://127.0.0.1:{free_port()}", "rk_of_a_test_server"
    variables = {
        "RANKFOLD_DATA_DIR": str(folder),
        "RANKFOLD_BOOTSTRAP_KEY": secret,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    port = url.rsplit(":", 1)[-1]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", port, "--log-level", "warning"]
    with running(command, folder / "log", os.environ | variables | environment) as process:
        wait_until(lambda: _answers(f"{url}/livez"), what="the API")
        yield Server(url, secret, folder, process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False
