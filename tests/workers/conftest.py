"""A worker's bench without a broker."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.blobs import open_store
from app.db.session import make_engine
from app.settings import Settings
from workers.attempt import Bench

FAKE_CHILD = (sys.executable, "-P", "-m", "tests.workers.fake_child")


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """An engine on SQLite."""
    engine = make_engine(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def bench(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The fake pipeline in the real process, short leases, two attempts."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    settings = Settings(lease_seconds=2.0, max_attempts=2, job_memory_bytes=1 << 29, threads=1)
    return Bench(settings, engine, open_store((tmp_path / "blobs").as_uri()), lambda: False, FAKE_CHILD)
