"""Queries on the tables of jobs. Every one is confined to one tenant's compressions."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.db.rows import AnyRow, AnySelect
from app.db.tables import Artifact, IdempotencyKey, Job, JobEvent

_ITEM = (
    Job.id,
    Job.status,
    Job.stage,
    Job.fraction,
    Job.eta_seconds,
    Job.attempt,
    Job.created_at,
    Job.started_at,
    Job.finished_at,
    Job.problem,
    Job.spec,
)
ORDER = (Job.created_at, Job.id)


def _of(key_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(Job.key_id == key_id, Job.kind == "compress")


def listing(key_id: str) -> AnySelect:
    """The tenant's jobs, without their warnings and reports."""
    return sa.select(*_ITEM).where(_of(key_id))


def find(connection: Connection, key_id: str, job_id: str) -> AnyRow | None:
    """One job, without its report."""
    query = listing(key_id).add_columns(Job.warnings).where(Job.id == job_id)
    return connection.execute(query).one_or_none()


def report(connection: Connection, key_id: str, job_id: str) -> AnyRow | None:
    """Status, problem and report of one job."""
    query = sa.select(Job.status, Job.problem, Job.report).where(_of(key_id), Job.id == job_id)
    return connection.execute(query).one_or_none()


def exists(connection: Connection, key_id: str, job_id: str) -> bool:
    """Whether the tenant has this job."""
    return connection.execute(sa.select(Job.id).where(_of(key_id), Job.id == job_id)).first() is not None


def events(connection: Connection, job_id: str, after: int, limit: int) -> Sequence[AnyRow]:
    """The job's events with an id above `after`, in order."""
    columns = (JobEvent.id, JobEvent.attempt, JobEvent.kind, JobEvent.data, JobEvent.at)
    query = sa.select(*columns).where(JobEvent.job_id == job_id, JobEvent.id > after)
    return connection.execute(query.order_by(JobEvent.id).limit(limit)).all()


def artifacts(connection: Connection, job_id: str) -> Sequence[AnyRow]:
    """The job's files, by name."""
    query = sa.select(Artifact.__table__).where(Artifact.job_id == job_id).order_by(Artifact.name)
    return connection.execute(query).all()


def answered(connection: Connection, key_id: str, key: str) -> Row[str, str] | None:
    """The digest of the request and the id of the job that an idempotency key stands for."""
    columns = (IdempotencyKey.request_sha256, IdempotencyKey.job_id)
    query = sa.select(*columns).where(IdempotencyKey.key_id == key_id, IdempotencyKey.key == key)
    return connection.execute(query).one_or_none()


def remember(connection: Connection, key_id: str, key: str, request_sha256: str, job_id: str) -> None:
    """Let the idempotency key stand for this request and job."""
    row = {"key_id": key_id, "key": key, "request_sha256": request_sha256, "job_id": job_id}
    connection.execute(sa.insert(IdempotencyKey).values(**row))


def try_lock(connection: Connection, key_id: str, key: str) -> bool:
    """Hold an idempotency key until the transaction ends; false if another request holds it.

    On SQLite writers take turns anyway, so that the other request is already over.
    """
    if connection.dialect.name != "postgresql":
        return True
    number = sa.func.hashtextextended(f"{key_id} {key}", 0)
    return bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(number))).scalar_one())
