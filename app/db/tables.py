"""The tables. Times are seconds since 1970 UTC by the database's clock; documents are JSON."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db.clock import now

Document = dict[str, Any]


class Base(DeclarativeBase):
    """Names every constraint, so that both databases can alter it later."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {float: sa.Double(), int: sa.BigInteger(), Document: sa.JSON(none_as_null=True)}


class ApiKey(Base):
    """A tenant: whoever holds the key. Only the key's SHA-256 is stored."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200))
    sha256: Mapped[str] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[float] = mapped_column(default=now())
    revoked_at: Mapped[float | None]


class Upload(Base):
    """A model (`mdl_…`) or a data set (`dst_…`): the bytes are the blob `uploads/{id}`."""

    __tablename__ = "uploads"
    __table_args__ = (sa.Index("ix_uploads_page", "key_id", "kind", "created_at", "id"),)
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    key_id: Mapped[str] = mapped_column(sa.ForeignKey("api_keys.id"))
    kind: Mapped[str] = mapped_column(sa.String(12))  # "model" | "dataset"
    name: Mapped[str] = mapped_column(sa.String(255))
    format: Mapped[str] = mapped_column(sa.String(16))
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[str] = mapped_column(sa.String(12), default="inspecting")
    summary: Mapped[Document | None]
    problem: Mapped[Document | None]
    created_at: Mapped[float] = mapped_column(default=now())


class Job(Base):
    """One piece of work for a worker. The row is the job; a broker message is only its doorbell.

    `kind` is `compress` (what users see as a job), `inspect_model` or `inspect_dataset` (whose
    `upload_id` is looked at). `attempt` is the fencing token: a worker may write only while it matches.
    `checkpoints` maps each finished stage to the attempt whose files are valid.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index("ix_jobs_outbox", "status", "next_publish"),
        sa.Index("ix_jobs_lease", "status", "lease_expires"),
        sa.Index("ix_jobs_page", "key_id", "kind", "created_at", "id"),
    )
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    key_id: Mapped[str] = mapped_column(sa.ForeignKey("api_keys.id"))
    kind: Mapped[str] = mapped_column(sa.String(20))
    upload_id: Mapped[str | None] = mapped_column(sa.ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    queue: Mapped[str] = mapped_column(sa.String(8), default="cpu")  # "cpu" | "gpu"
    spec: Mapped[Document]
    status: Mapped[str] = mapped_column(sa.String(12), default="queued")
    stage: Mapped[str | None] = mapped_column(sa.String(12))
    fraction: Mapped[float] = mapped_column(default=0.0)
    eta_seconds: Mapped[float | None]
    attempt: Mapped[int] = mapped_column(sa.Integer, default=0)
    lease_owner: Mapped[str | None] = mapped_column(sa.String(200))
    lease_expires: Mapped[float | None]
    next_publish: Mapped[float] = mapped_column(default=0.0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    checkpoints: Mapped[Document] = mapped_column(default=dict)
    warnings: Mapped[list[Document]] = mapped_column(sa.JSON, default=list)
    problem: Mapped[Document | None]
    report: Mapped[Document | None]
    created_at: Mapped[float] = mapped_column(default=now())
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class JobEvent(Base):
    """What happened to a job, in order: the ids are the cursor of the event page."""

    __tablename__ = "job_events"
    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    job_id: Mapped[str] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempt: Mapped[int] = mapped_column(sa.Integer)
    kind: Mapped[str] = mapped_column(sa.String(20))
    data: Mapped[Document | None]
    at: Mapped[float] = mapped_column(default=now())


class Artifact(Base):
    """A file that a job made: the bytes are the blob `artifacts/{job_id}/{attempt}/{name}`."""

    __tablename__ = "artifacts"
    job_id: Mapped[str] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    attempt: Mapped[int] = mapped_column(sa.Integer)
    format: Mapped[str] = mapped_column(sa.String(16))
    candidate: Mapped[int | None] = mapped_column(sa.Integer)
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))


class IdempotencyKey(Base):
    """A request that was answered: the same key with the same body gets the same job."""

    __tablename__ = "idempotency_keys"
    key_id: Mapped[str] = mapped_column(sa.ForeignKey("api_keys.id"), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(sa.String(64))
    job_id: Mapped[str] = mapped_column(sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(default=now())


class Latency(Base):
    """What a layer's calls take on a kind of machine: milliseconds, dense and by form. `signature` stands for
    operators and shapes. A tenant's own: they are said by processes that handled its uploads."""

    __tablename__ = "latencies"
    key_id: Mapped[str] = mapped_column(sa.ForeignKey("api_keys.id"), primary_key=True)
    machine: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    signature: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    ms: Mapped[Document]
    measured_at: Mapped[float] = mapped_column(default=now())
