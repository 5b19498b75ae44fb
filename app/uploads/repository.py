"""Queries on the table of uploads. Every one is confined to one tenant's rows."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.contract.status import JobStatus
from app.db.rows import AnyRow, AnySelect
from app.db.tables import Job, Upload

_ITEM = (
    Upload.id,
    Upload.name,
    Upload.format,
    Upload.bytes,
    Upload.sha256,
    Upload.status,
    Upload.created_at,
    Upload.problem,
)
ORDER = (Upload.created_at, Upload.id)
_UNFINISHED = Job.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])


def insert(connection: Connection, values: dict[str, Any]) -> None:
    """Add a row, whose bytes are stored already."""
    connection.execute(sa.insert(Upload).values(**values))


def listing(key_id: str, kind: str) -> AnySelect:
    """The tenant's uploads of a kind, without their summaries."""
    return sa.select(*_ITEM).where(Upload.key_id == key_id, Upload.kind == kind)


def find(connection: Connection, key_id: str, kind: str, upload_id: str) -> AnyRow | None:
    """One upload with its summary."""
    query = listing(key_id, kind).add_columns(Upload.summary).where(Upload.id == upload_id)
    return connection.execute(query).one_or_none()


def names(connection: Connection, key_id: str, kind: str, ids: Collection[str]) -> dict[str, str]:
    """The names of those uploads that are there, by id."""
    query = sa.select(Upload.id, Upload.name).where(
        Upload.key_id == key_id, Upload.kind == kind, Upload.id.in_(ids)
    )
    return {row.id: row.name for row in connection.execute(query)}


def find_for_job(connection: Connection, key_id: str, kind: str, upload_id: str) -> AnyRow | None:
    """Like `find`, and nobody deletes it before the transaction ends."""
    query = listing(key_id, kind).add_columns(Upload.summary).where(Upload.id == upload_id)
    return connection.execute(query.with_for_update(read=True)).one_or_none()


def lock(connection: Connection, key_id: str, kind: str, upload_id: str) -> bool:
    """Keep an upload to this transaction; false if there is no such upload.

    Its inspection is kept first: a worker that ends one takes the two in this order.
    """
    inspection = sa.select(Job.id).where(Job.key_id == key_id, Job.upload_id == upload_id)
    connection.execute(inspection.with_for_update())
    query = sa.select(Upload.id).where(Upload.key_id == key_id, Upload.kind == kind, Upload.id == upload_id)
    return connection.execute(query.with_for_update()).first() is not None


def unfinished_job(connection: Connection, key_id: str, upload_id: str) -> str | None:
    """The id of a compression that has not ended and works on the upload."""
    uses = sa.or_(
        Job.spec["model"].as_string() == upload_id,
        Job.spec[("data", "train")].as_string() == upload_id,
        Job.spec[("data", "test")].as_string() == upload_id,
    )
    query = sa.select(Job.id).where(Job.key_id == key_id, _UNFINISHED, uses).limit(1)
    return connection.execute(query).scalar()


def delete(connection: Connection, upload_id: str) -> None:
    """Remove the row, and with it its inspection, whose worker stops when it hears that its job is gone."""
    connection.execute(sa.delete(Upload).where(Upload.id == upload_id))
