"""Engines: the settings under which both databases survived faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

_POSTGRES_OPTIONS = (
    "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000"
)
_SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "busy_timeout=30000",
    "foreign_keys=ON",
    "cache_size=-20000",
)


def make_engine(url: str, *, pool_size: int = 5) -> Engine:
    """An engine for `url`, SQLite or PostgreSQL; raises `ValueError` for any other database."""
    backend = sa.make_url(url).get_backend_name()
    if backend == "sqlite":
        return _sqlite(url, pool_size)
    if backend == "postgresql":
        return _postgresql(url, pool_size)
    raise ValueError(f"the database must be SQLite or PostgreSQL, not {backend}")


def _postgresql(url: str, pool_size: int) -> Engine:
    keepalives = {"keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3}
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={"connect_timeout": 3, "options": _POSTGRES_OPTIONS, **keepalives},
    )


def _sqlite(url: str, pool_size: int) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": 30}, pool_size=pool_size, max_overflow=10)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.isolation_level = None  # we send BEGIN ourselves

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN that later writes fails with "database is locked" instead of waiting.
        readonly = connection.get_execution_options().get("readonly", False)
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for queries: takes no write lock on SQLite."""
    with engine.connect() as connection:
        yield connection.execution_options(readonly=True)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end, rolled back on any exception."""
    with engine.begin() as connection:
        yield connection
