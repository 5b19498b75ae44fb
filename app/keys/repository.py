"""Queries on the table of API keys."""

from collections.abc import Sequence
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.db.clock import now
from app.db.tables import ApiKey


def insert(connection: Connection, *, name: str, sha256: str) -> str:
    """Add a key; the id it got."""
    key_id = f"key_{uuid4().hex}"
    connection.execute(sa.insert(ApiKey).values(id=key_id, name=name, sha256=sha256))
    return key_id


def by_digest(connection: Connection, sha256: str) -> Row[str, float | None] | None:
    """The id and time of revocation of the key with this digest."""
    return connection.execute(
        sa.select(ApiKey.id, ApiKey.revoked_at).where(ApiKey.sha256 == sha256)
    ).one_or_none()


def any_exists(connection: Connection) -> bool:
    """Whether a key was ever made."""
    return connection.execute(sa.select(ApiKey.id).limit(1)).first() is not None


def every(connection: Connection) -> Sequence[Row[str, str, float, float | None]]:
    """All keys, oldest first: id, name, created_at, revoked_at."""
    columns = (ApiKey.id, ApiKey.name, ApiKey.created_at, ApiKey.revoked_at)
    return connection.execute(sa.select(*columns).order_by(ApiKey.created_at, ApiKey.id)).all()


def revoke(connection: Connection, key_id: str) -> bool:
    """Note the time of revocation; false if there is no such key or it is revoked already."""
    valid = sa.and_(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    return connection.execute(sa.update(ApiKey).where(valid).values(revoked_at=now())).rowcount == 1
