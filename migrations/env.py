"""Alembic's entry: one history for SQLite and PostgreSQL."""

from typing import Any

import sqlalchemy as sa
from alembic import context

from app.db.session import make_engine
from app.db.tables import Base
from app.settings import get_settings

_LOCK = 7_242_653  # any constant: two processes that migrate at once take turns


def _options() -> dict[str, Any]:
    return {"target_metadata": Base.metadata, "render_as_batch": True, "compare_type": True}


def run() -> None:
    """Migrate inside one transaction, alone."""
    url = context.config.attributes.get("url") or get_settings().resolved_database_url
    engine = make_engine(url, pool_size=1)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # Batch mode rebuilds tables: a foreign key must not fire while one is replaced.
            connection.connection.execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            context.configure(connection=connection, **_options())
            context.run_migrations()
    engine.dispose()


run()
