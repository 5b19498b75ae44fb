"""The schema's history (alembic), for SQLite and PostgreSQL alike."""
