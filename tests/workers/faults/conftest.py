"""A database, a broker, a blob store and real workers that a test may kill."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from app.blobs import BlobStore, open_store
from app.db.session import make_engine
from app.queue.doorbell import make_celery
from app.queue.janitor import Janitor
from tests.app.queue.jobs import add_job, add_upload, row_of
from tests.processes import Broker, running, wait_until
from tests.workers import fake_child

LEASE_SECONDS = 2.0
_FINAL = {"succeeded", "failed", "cancelled"}


class Crew:
    """What the workers share. The API's part is played by a janitor in the test's own process."""

    def __init__(self, database_url: str, broker: Broker, folder: Path) -> None:
        self.engine: Engine = make_engine(database_url)
        self.broker = broker
        self.store: BlobStore = open_store((folder / "blobs").as_uri())
        self._folder = folder
        self._environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "RANKFOLD_DATA_DIR": str(folder),
            "RANKFOLD_DATABASE_URL": database_url,
            "RANKFOLD_BROKER_URL": broker.url,
            "RANKFOLD_LEASE_SECONDS": str(LEASE_SECONDS),
            "RANKFOLD_THREADS": "1",
            "TMPDIR": str(folder),
        }
        upload = folder / "upload"
        upload.write_bytes(b"bytes")
        self._model = add_upload(self.engine)
        self.store.put_file(f"uploads/{self._model}", upload)

    @contextmanager
    def worker(self, concurrency: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """A real Celery worker with the fake pipeline."""
        celery = [sys.executable, "-m", "celery", "--app", "tests.workers.fake_worker:celery", "worker"]
        options = ["--queues=cpu", f"--concurrency={concurrency}", "--loglevel=INFO", "--without-mingle"]
        with running([*celery, *options], self._folder / "worker.log", self._environment) as process:
            yield process

    @contextmanager
    def janitor(self) -> Iterator[None]:
        """The API's janitor."""
        celery = make_celery(self.broker.url)
        with Janitor(self.engine, celery, lease_seconds=LEASE_SECONDS, max_attempts=5):
            yield

    def job(self, stage_seconds: float = 0.0) -> str:
        """A job of six stages that take so long each."""
        return add_job(self.engine, model=self._model, seed=fake_child.SLOW + int(100 * stage_seconds))

    def row(self, job_id: str) -> Any:
        """The job's row."""
        return row_of(self.engine, job_id)

    def wait(self, job_id: str, seconds: float = 40.0) -> Any:
        """The row of the job once it has ended."""
        wait_until(lambda: self.row(job_id).status in _FINAL, seconds, f"the end of {job_id}")
        return self.row(job_id)

    def wait_for_stage(self, job_id: str, stage: str) -> None:
        """Until the stage's checkpoint is named in the row."""
        wait_until(lambda: stage in self.row(job_id).checkpoints, 40.0, f"the checkpoint of {stage}")


@pytest.fixture
def crew(sqlite_url: str, broker: Broker, tmp_path: Path) -> Iterator[Crew]:
    """A crew with its janitor at work and no worker yet."""
    crew = Crew(sqlite_url, broker, tmp_path)
    with ExitStack() as stack:
        stack.enter_context(crew.janitor())
        yield crew
    crew.engine.dispose()
