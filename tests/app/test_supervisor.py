"""The supervisor and what it keeps running, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa

from app.blobs import open_store
from app.broker import socket_path
from app.db.session import make_engine, reading
from app.db.tables import Job, JobEvent
from app.supervisor import CannotStart, demand_free, only_instance
from tests.app.queue.jobs import add_upload
from tests.processes import free_port, gone, kill_tree, running, tree, wait_until

ROOT = Path(__file__).parents[2]


class Service:
    """A supervised service in a folder of its own."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.log = folder / "service.log"
        self.port = free_port()
        self.engine = make_engine(database_url)
        self.model = add_upload(self.engine)
        upload = folder / "upload"
        upload.write_bytes(b"bytes")
        open_store((folder / "blobs").as_uri()).put_file(f"uploads/{self.model}", upload)
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RANKFOLD_DATA_DIR": str(folder),
            "RANKFOLD_LEASE_SECONDS": "2",
            "RANKFOLD_PORT": str(self.port),
            "RANKFOLD_THREADS": "1",
        }

    def pid(self, part: str) -> int:
        """The process of a part, or 0."""
        try:
            return int(json.loads((self.folder / "run.json").read_text()).get(part, 0))
        except FileNotFoundError:
            return 0

    def has_new(self, part: str, before: int) -> bool:
        """Whether another process than `before` is the part now."""
        return self.pid(part) not in (0, before)

    def is_up(self) -> bool:
        """Whether the API listens."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/", timeout=2).status_code == 404
        except httpx.HTTPError:
            return False

    def post(self) -> str | None:
        """The id of a job that was accepted, or nothing."""
        try:
            answer = httpx.post(f"http://127.0.0.1:{self.port}/jobs/{self.model}", timeout=5)
        except httpx.HTTPError:
            return None
        return str(answer.json()) if answer.status_code == 202 else None

    def post_until_accepted(self) -> str:
        """The id of a job, posted as often as it takes."""
        accepted: list[str] = []

        def post() -> bool:
            accepted.extend(filter(None, [self.post()]))
            return bool(accepted)

        wait_until(post, 20.0, "an accepted job")
        return accepted[0]

    def all_ended(self) -> bool:
        """Whether no job is queued or running."""
        with reading(self.engine) as connection:
            going = sa.select(Job.id).where(Job.status.in_(("queued", "running"))).limit(1)
            return connection.scalar(going) is None


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, sqlite_url)
    command = [sys.executable, "-m", "tests.app.serve_parts"]
    with running(command, service.log, service.environment) as supervisor:
        wait_until(lambda: service.pid("worker") and service.is_up(), 30.0, "the service")
        yield service
        supervisor.terminate()
        wait_until(lambda: supervisor.poll() is not None, 40.0, "the end of the service")
    service.engine.dispose()


def test_every_accepted_job_ends_once_though_api_and_broker_are_killed(service: Service) -> None:
    accepted = []
    for number in range(20):
        if number in (5, 12):
            for part in ("api", "broker"):
                kill_tree(service.pid(part))
        accepted.append(service.post_until_accepted())
    wait_until(service.all_ended, 60.0, "the end of all jobs")
    with reading(service.engine) as connection:
        ended = list(connection.scalars(sa.select(JobEvent.job_id).where(JobEvent.kind == "succeeded")))
    assert len(ended) == len(set(ended))
    assert set(accepted) <= set(ended)


def test_a_killed_part_is_started_again_and_said_so(service: Service) -> None:
    for part in ("api", "broker", "worker"):
        before = service.pid(part)
        kill_tree(before)
        wait_until(partial(service.has_new, part, before), what=part)
        assert psutil.pid_exists(service.pid(part))
        assert f"{part} ended (SIGKILL): starting it again" in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_nothing_is_left_running(service: Service, number: int) -> None:
    wait_until(lambda: len(tree(service.pid("worker"))) == 3, what="the worker's pool")
    family = tree(service.pid("supervisor"))
    os.kill(service.pid("supervisor"), number)
    wait_until(lambda: gone(family), 30.0, "the end of every process")
    assert len(family) == 6
    assert not (service.folder / "run.json").exists()
    assert service.log.read_text().rstrip().endswith("stopped")


def test_the_parts_end_with_a_killed_supervisor(service: Service) -> None:
    supervisor, *family = tree(service.pid("supervisor"))
    supervisor.kill()
    wait_until(lambda: gone(family), 30.0, "the end of every part")
    assert not service.is_up()


def test_a_data_folder_has_one_service(tmp_path: Path) -> None:
    with (
        only_instance(tmp_path),
        pytest.raises(CannotStart, match="RANKFOLD_DATA_DIR"),
        only_instance(tmp_path),
    ):
        pytest.fail("two instances held the folder")
    with only_instance(tmp_path):
        assert (tmp_path / "lock").exists()


def test_a_second_service_says_why_it_does_not_start(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RANKFOLD_DATA_DIR": str(tmp_path)}
    with only_instance(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "app.cli", "serve"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert second.returncode == 1
    assert second.stderr.startswith("rankfold: another rankfold serves")


def test_a_part_that_cannot_start_ends_the_service(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    code = f"""
from pathlib import Path
from app.supervisor import CannotStart, Part, Supervisor
part = Part("api", {command!r}, ready=lambda: False)
try:
    Supervisor([part], Path({str(tmp_path)!r})).run(when_ready=lambda: None)
except CannotStart as reason:
    print(reason)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    service = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert "api | no such thing" in service.stdout
    assert service.stdout.rstrip().endswith("api did not start: the lines above say why")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(CannotStart, match="RANKFOLD_PORT"):
        demand_free("127.0.0.1", server.getsockname()[1])


def test_a_socket_path_that_is_too_long_moves_to_a_short_folder(tmp_path: Path) -> None:
    short = Path("/run/broker.sock")
    long = tmp_path / ("x" * 120) / "broker.sock"
    moved = socket_path(long)
    moved.parent.rmdir()
    assert socket_path(short) == short
    assert len(str(moved)) < 100
