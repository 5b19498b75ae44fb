"""Rows for the tests of the queue."""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

from app.db.clock import now
from app.db.session import reading, writing
from app.db.tables import ApiKey, Job, JobEvent, Upload
from app.queue.lifecycle import enqueue

KEY = "key_of_the_tests"


def add_key(engine: Engine) -> None:
    """The tenant of every row."""
    with writing(engine) as connection:
        if connection.scalar(sa.select(ApiKey.id).where(ApiKey.id == KEY)) is None:
            connection.execute(sa.insert(ApiKey).values(id=KEY, name="tests", sha256="0" * 64))


def add_upload(engine: Engine, kind: str = "model", **values: Any) -> str:
    """An upload that waits for its inspection."""
    add_key(engine)
    upload_id = f"{'mdl' if kind == 'model' else 'dst'}_{uuid.uuid4().hex}"
    row = {"name": "a", "format": "pt2", "bytes": 1, "sha256": "0" * 64} | values
    with writing(engine) as connection:
        connection.execute(sa.insert(Upload).values(id=upload_id, key_id=KEY, kind=kind, **row))
    return upload_id


def add_job(
    engine: Engine, kind: str = "compress", queue: str = "cpu", upload_id: str | None = None, **spec: Any
) -> str:
    """A queued job."""
    add_key(engine)
    job_id = f"job_{uuid.uuid4().hex}"
    with writing(engine) as connection:
        enqueue(connection, job_id=job_id, key_id=KEY, kind=kind, spec=spec, queue=queue, upload_id=upload_id)
    return job_id


def row_of(engine: Engine, job_id: str) -> Any:
    """The job's row as it is now."""
    with reading(engine) as connection:
        return connection.execute(sa.select(*Job.__table__.columns).where(Job.id == job_id)).one()


def upload_of(engine: Engine, upload_id: str) -> Any:
    """The upload's row as it is now."""
    with reading(engine) as connection:
        return connection.execute(sa.select(*Upload.__table__.columns).where(Upload.id == upload_id)).one()


def events_of(engine: Engine, job_id: str) -> list[str]:
    """What happened to the job, in order."""
    query = sa.select(JobEvent.kind).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
    with reading(engine) as connection:
        return list(connection.scalars(query))


def expire(engine: Engine, job_id: str) -> None:
    """Let a job's lease end now, as if its worker had been silent."""
    with writing(engine) as connection:
        connection.execute(sa.update(Job).where(Job.id == job_id).values(lease_expires=now() - 1))
