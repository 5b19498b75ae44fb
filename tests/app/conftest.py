"""One API for all tests of a session, on both databases; each test has tenants of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.db.migrate import upgrade
from app.db.session import make_engine
from app.main import create_app
from app.settings import Settings
from tests.app.tenants import Tenant, new_tenant
from tests.processes import Broker

LIMIT = 100_000  # bytes of an upload


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A migrated, empty database: the test runs once on each of the two."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def lasting_broker() -> Iterator[Broker]:
    """One broker for the whole session."""
    with tempfile.TemporaryDirectory(prefix="rankfold-") as folder:  # short: it holds the socket
        broker = Broker(Path(folder))
        broker.start()
        yield broker
        broker.kill()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lasting_broker: Broker
) -> Settings:
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(data_dir=folder, max_upload_bytes=LIMIT, broker_url=lasting_broker.url)
    if request.param == "postgresql":
        server: Any = request.getfixturevalue("_postgres")
        settings = settings.model_copy(update={"database_url": server.get_uri("postgres")})
    upgrade(settings.resolved_database_url)
    return settings


@pytest.fixture(scope="session")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="session")
def anybody(app: FastAPI) -> Iterator[TestClient]:
    """A client without a key; the application runs as long as it does."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def tenant(app: FastAPI, anybody: TestClient) -> Tenant:
    """Somebody with a key."""
    return new_tenant(app, anybody, "tenant")


@pytest.fixture
def stranger(app: FastAPI, anybody: TestClient) -> Tenant:
    """Somebody else with a key."""
    return new_tenant(app, anybody, "stranger")
