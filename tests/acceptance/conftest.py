"""The real service: `rankfold serve` as a user starts it, with a client that talks to it."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.client.client import Client
from app.supervisor import RUN_FILE
from tests.processes import free_port, running, wait_until
from tests.workers.engine.networks import write_example


@dataclass(frozen=True)
class Service:
    """A running service; its state is in `folder/var`."""

    url: str
    folder: Path

    @property
    def key(self) -> str:
        """The key it made at its first start."""
        return (self.folder / "var" / "bootstrap.key").read_text().strip()

    def pid(self, part: str) -> int:
        """The process id of a part: broker, api or worker; 0 before it was started."""
        return int(json.loads((self.folder / "var" / RUN_FILE).read_text()).get(part, 0))

    def client(self) -> Client:
        """A client with the service's own key."""
        return Client(self.url, self.key)


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Service]:
    """`rankfold serve` with its state in the folder's `var`, as `make serve` has it in a checkout."""
    service = Service(f"http://127.0.0.1:{free_port()}", folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RANKFOLD_")}
    environment |= {"RANKFOLD_PORT": service.url.rsplit(":", 1)[1], "RANKFOLD_DATA_DIR": str(folder / "var")}
    environment |= {f"RANKFOLD_{name.upper()}": value for name, value in settings.items()}
    with running([sys.executable, "-m", "app.cli", "serve"], folder / "log", environment):
        # The API answers before the worker is there.
        wait_until(lambda: _is_ready(service.url) and service.pid("worker"), 60, "the service's readiness")
        yield service


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network, and rows that it labelled itself."""
    folder = tmp_path_factory.mktemp("small")
    write_example(folder, {"train": 320, "test": 100})
    return folder
