"""The life of a job: every change of state is one fenced statement and one event in the same transaction.

    queued ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
      ▲                  │
      └──release, retry, reap

Who holds a `Lease` may write the row, as long as the row's `attempt` is the lease's: every claim raises it,
so that a worker that was frozen or cut off can never overwrite its successor. Leases are measured by the
database's clock alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine

from app.contract.problem import Notice, Problem
from app.contract.status import JobStatus, UploadStatus
from app.db.clock import now
from app.db.session import reading, writing
from app.db.tables import Artifact, Document, Job, JobEvent, Upload

RING_SECONDS = 8.0  # a queued job that nobody took is rung again after so long
_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_expires": None, "eta_seconds": None}
_WINDOW = 32  # the oldest jobs of a queue that are rung at once: the rest waits in the table, in order

WORKER_LOST = Problem.of(
    "worker_lost",
    "The worker that ran this job stopped answering, again and again.",
    status=500,
    hint="Submit the job once more; if it is lost again, look at the worker's log and at its memory.",
)


class Verdict(Enum):
    """What a heartbeat answers: work on, stop for the user cancelled, or stop for the job is another's."""

    GO_ON = "go_on"
    CANCEL = "cancel"
    LOST = "lost"


@dataclass(frozen=True)
class Lease:
    """The right to write one job's row, for `seconds` after each heartbeat."""

    job_id: str
    attempt: int
    seconds: float


@dataclass(frozen=True)
class Claimed:
    """A job that is ours now. `checkpoints` maps each finished stage to the attempt of its files."""

    lease: Lease
    key_id: str
    kind: str
    upload_id: str | None
    spec: Document
    checkpoints: dict[str, int]
    warnings: list[Notice]


@dataclass(frozen=True)
class Happened:
    """An event for the job's page."""

    kind: str
    data: Document | None = None


@dataclass(frozen=True)
class Pulse:
    """What a heartbeat stores; the whole of it, every time, but `happened`: only what is new."""

    stage: str | None = None
    fraction: float = 0.0
    eta_seconds: float | None = None
    checkpoints: dict[str, int] | None = None
    warnings: Sequence[Notice] = ()
    happened: Sequence[Happened] = ()


@dataclass(frozen=True)
class Made:
    """A file that a job made, stored as the blob `artifacts/{job_id}/{attempt}/{name}`."""

    name: str
    format: str
    candidate: int | None
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Ending:
    """How a job ends. `result` is a compression's report or an inspection's summary."""

    status: JobStatus
    result: Document | None = None
    problem: Problem | None = None
    made: Sequence[Made] = ()

    @classmethod
    def succeeded(cls, result: Document, made: Sequence[Made] = ()) -> Self:
        """The work is done."""
        return cls(JobStatus.SUCCEEDED, result=result, made=made)

    @classmethod
    def failed(cls, problem: Problem) -> Self:
        """The work cannot be done."""
        return cls(JobStatus.FAILED, problem=problem)

    @classmethod
    def cancelled(cls) -> Self:
        """The user does not want it any more."""
        return cls(JobStatus.CANCELLED)


def enqueue(
    connection: Connection,
    *,
    job_id: str,
    key_id: str,
    kind: str,
    spec: Document,
    queue: str,
    upload_id: str | None = None,
) -> None:
    """Add a queued job; it is rung once the caller's transaction has been committed.

    `kind` is `compress`, or `inspect_model` / `inspect_dataset` with the `upload_id` to look at, whose status
    the inspection's end decides.
    """
    row = {"id": job_id, "key_id": key_id, "kind": kind, "spec": spec, "queue": queue, "upload_id": upload_id}
    connection.execute(sa.insert(Job).values(**row))
    _record(connection, [(job_id, 0)], Happened("queued"))


def request_cancel(connection: Connection, job_id: str) -> bool:
    """Cancel a queued job at once and a running one at its next heartbeat; False: it had ended already."""
    if _end(connection, (Job.id == job_id) & (Job.status == JobStatus.QUEUED), Ending.cancelled()):
        return True
    running = (Job.id == job_id) & (Job.status == JobStatus.RUNNING)
    asked = sa.update(Job).where(running, ~Job.cancel_requested).values(cancel_requested=True)
    rows = connection.execute(asked.returning(Job.id, Job.attempt)).all()
    _record(connection, rows, Happened("cancel_requested"))
    return bool(rows) or connection.scalar(sa.select(Job.id).where(running)) is not None


def answer(engine: Engine, job_id: str, owner: str, lease_seconds: float) -> Claimed | None:
    """Take the oldest job that waits in the queue of `job_id`, for which it rang; None: none waits.

    Bells are in no order: a job whose turn came while its queue was full is rung for later than younger ones.
    """
    queue = sa.select(Job.queue).where(Job.id == job_id).scalar_subquery()
    waiting = (Job.queue == queue) & (Job.status == JobStatus.QUEUED) & ~Job.cancel_requested
    oldest = sa.select(Job.id).where(waiting).order_by(Job.created_at, Job.id).limit(1)
    while True:
        with reading(engine) as connection:
            found = connection.scalar(oldest)
        if found is None:
            return None
        if (claimed := claim(engine, found, owner, lease_seconds)) is not None:
            return claimed


def claim(engine: Engine, job_id: str, owner: str, lease_seconds: float) -> Claimed | None:
    """Take a queued job; None: another worker has it, it was cancelled or it is gone."""
    take = (
        sa.update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED, ~Job.cancel_requested)
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            lease_owner=owner,
            lease_expires=now() + lease_seconds,
            started_at=sa.func.coalesce(Job.started_at, now()),
        )
        .returning(Job.attempt, Job.key_id, Job.kind, Job.upload_id, Job.spec, Job.checkpoints, Job.warnings)
    )
    with writing(engine) as connection:
        row = connection.execute(take).first()
        if row is None:
            return None
        started = Happened("started", {"stages_done": list(row.checkpoints)})
        _record(connection, [(job_id, row.attempt)], started)
    warnings = [Notice.model_validate(warning) for warning in row.warnings]
    lease = Lease(job_id, row.attempt, lease_seconds)
    return Claimed(lease, row.key_id, row.kind, row.upload_id, row.spec, row.checkpoints, warnings)


def heartbeat(engine: Engine, lease: Lease, pulse: Pulse) -> Verdict:
    """Renew the lease and store how far the job is."""
    values: dict[str, Any] = {
        "lease_expires": now() + lease.seconds,
        "fraction": pulse.fraction,
        "eta_seconds": pulse.eta_seconds,
        "warnings": [warning.model_dump(mode="json") for warning in pulse.warnings],
    }
    if pulse.stage is not None:
        values["stage"] = pulse.stage
    if pulse.checkpoints is not None:
        values["checkpoints"] = pulse.checkpoints
    beat = sa.update(Job).where(_held(lease)).values(**values).returning(Job.cancel_requested)
    with writing(engine) as connection:
        row = connection.execute(beat).first()
        if row is None:
            return Verdict.LOST
        for happened in pulse.happened:
            _record(connection, [(lease.job_id, lease.attempt)], happened)
    return Verdict.CANCEL if row.cancel_requested else Verdict.GO_ON


def describe(engine: Engine, lease: Lease, summary: Document) -> None:
    """Let an upload be used of which its inspection, which goes on, knows what it is."""
    with writing(engine) as connection:
        inspected = sa.select(Job.upload_id).where(_held(lease))
        ready = sa.update(Upload).where(Upload.id.in_(inspected))
        connection.execute(ready.values(status=UploadStatus.READY, summary=summary))


def finish(engine: Engine, lease: Lease, ending: Ending) -> bool:
    """End the job with all that comes with it, in one transaction; False: the lease was lost."""
    with writing(engine) as connection:
        if not _end(connection, _held(lease), ending):
            return False
        report = sa.update(Job).where(Job.id == lease.job_id, Job.kind == "compress")
        connection.execute(report.values(report=ending.result))
        for made in ending.made:
            row = {"job_id": lease.job_id, "attempt": lease.attempt, **vars(made)}
            connection.execute(sa.insert(Artifact).values(**row))
    return True


def release(engine: Engine, lease: Lease) -> bool:
    """Hand a job back at its last checkpoint because this worker stops; False: the lease was lost."""
    with writing(engine) as connection:
        stopped = _end(connection, _held(lease) & Job.cancel_requested, Ending.cancelled())
        return stopped + _requeue(connection, _held(lease), Happened("released")) > 0


def retry(engine: Engine, lease: Lease, problem: Problem, max_attempts: int) -> bool:
    """Queue a job anew whose process died, or fail it with `problem` when it was lost too often.

    False: the lease was lost.
    """
    with writing(engine) as connection:
        return _take_back(connection, _held(lease), problem, max_attempts) > 0


def reap(engine: Engine, max_attempts: int) -> int:
    """Take back the jobs whose worker fell silent; how many there were."""
    lost = (Job.status == JobStatus.RUNNING) & (Job.lease_expires < now())
    with reading(engine) as connection:  # spares SQLite's one write lock: mostly there is nothing to do
        if connection.scalar(sa.select(Job.id).where(lost).limit(1)) is None:
            return 0
    with writing(engine) as connection:
        return _take_back(connection, lost, WORKER_LOST, max_attempts)


def due(engine: Engine, queues: Iterable[str]) -> list[tuple[str, str]]:
    """The (job, queue) pairs to ring now, the oldest first; they are not due again for `RING_SECONDS`.

    A ring that is lost costs only time, so the mark is committed before anything is sent.
    """
    waiting = (Job.status == JobStatus.QUEUED) & (Job.next_publish <= now())
    with reading(engine) as connection:
        if connection.scalar(sa.select(Job.id).where(waiting).limit(1)) is None:
            return []
    with writing(engine) as connection:
        return [(job_id, queue) for queue in queues for job_id in _mark(connection, queue)]


def _mark(connection: Connection, queue: str) -> list[str]:
    queued = (Job.queue == queue) & (Job.status == JobStatus.QUEUED)
    oldest = sa.select(Job.id).where(queued).order_by(Job.created_at, Job.id).limit(_WINDOW)
    ours = (
        sa.select(Job.id)
        .where(Job.id.in_(connection.scalars(oldest).all()), queued, Job.next_publish <= now())
        .order_by(Job.created_at, Job.id)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.scalars(ours))
    connection.execute(sa.update(Job).where(Job.id.in_(ids)).values(next_publish=now() + RING_SECONDS))
    return ids


def _held(lease: Lease) -> ColumnElement[bool]:
    return (Job.id == lease.job_id) & (Job.attempt == lease.attempt) & (Job.status == JobStatus.RUNNING)


def _take_back(connection: Connection, lost: ColumnElement[bool], problem: Problem, max_attempts: int) -> int:
    """End what was cancelled or died too often, and queue the rest anew."""
    deaths = (
        sa.select(sa.func.count())
        .where(JobEvent.job_id == Job.id, JobEvent.kind == "requeued")
        .scalar_subquery()
    )
    return (
        _end(connection, lost & Job.cancel_requested, Ending.cancelled())
        + _end(connection, lost & (deaths >= max_attempts - 1), Ending.failed(problem), exhausted=True)
        + _requeue(connection, lost, Happened("requeued", {"code": problem.code}))
    )


def _requeue(connection: Connection, where: ColumnElement[bool], happened: Happened) -> int:
    back = sa.update(Job).where(where).values(status=JobStatus.QUEUED, next_publish=0.0, **_NO_LEASE)
    rows = connection.execute(back.returning(Job.id, Job.attempt)).all()
    _record(connection, rows, happened)
    return len(rows)


def _end(
    connection: Connection, where: ColumnElement[bool], ending: Ending, *, exhausted: bool = False
) -> int:
    """Bring the matching jobs to `ending` and the uploads they inspect to theirs."""
    problem = ending.problem and ending.problem.model_dump(mode="json", exclude_none=True)
    values: dict[str, Any] = {"status": ending.status, "problem": problem, "finished_at": now(), **_NO_LEASE}
    if ending.status is JobStatus.SUCCEEDED:
        values["fraction"] = 1.0
    rows = connection.execute(
        sa.update(Job).where(where).values(**values).returning(Job.id, Job.attempt, Job.upload_id)
    ).all()
    code = {"code": ending.problem.code} if ending.problem else None
    _record(connection, [(row.id, row.attempt) for row in rows], Happened(ending.status, code))
    inspected = [row.upload_id for row in rows if row.upload_id is not None]
    if inspected:
        _judge(connection, inspected, ending, exhausted=exhausted)
    return len(rows)


def _judge(connection: Connection, upload_ids: Sequence[str], ending: Ending, *, exhausted: bool) -> None:
    """Write what an inspection found into its uploads. One that was described stays so, however it ends."""
    uploads = sa.update(Upload).where(Upload.id.in_(upload_ids))
    if ending.status is JobStatus.SUCCEEDED:
        connection.execute(uploads.values(status=UploadStatus.READY, summary=ending.result))
        return
    problem = ending.problem if ending.problem and not exhausted else _inspection_failed(ending.problem)
    document = problem.model_dump(mode="json", exclude_none=True)
    rejected = uploads.where(Upload.status == UploadStatus.INSPECTING)
    connection.execute(rejected.values(status=UploadStatus.REJECTED, problem=document))


def _inspection_failed(cause: Problem | None) -> Problem:
    why = cause.detail if cause else "The inspection was cancelled."
    return Problem.of(
        "inspection_failed",
        f"The file could not be inspected. {why}",
        hint="Upload the file once more; if it is refused again, it is too large for this server.",
    )


def _record(connection: Connection, jobs: Iterable[Any], happened: Happened) -> None:
    rows = [
        {"job_id": job_id, "attempt": attempt, "kind": happened.kind, "data": happened.data}
        for job_id, attempt in jobs
    ]
    if rows:
        connection.execute(sa.insert(JobEvent), rows)
