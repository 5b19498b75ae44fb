"""The rules of jobs."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from app.contract.problem import Problem
from app.contract.spec import Device, JobSpec
from app.contract.status import JobStatus, UploadStatus
from app.contract.summary import DatasetSummary, ModelSummary
from app.db.rows import AnyRow
from app.db.session import reading, writing
from app.errors import Conflict, NotFound, Unprocessable
from app.jobs import repository
from app.jobs.schemas import ArtifactView, EventView, JobItem, JobView
from app.jobs.validation import resolve
from app.jobs.views import artifact_view, event_view, job_item, job_view
from app.queue import lifecycle
from app.uploads import repository as uploads
from app.uploads.kinds import DATASET, MODEL, Kind
from app.uploads.service import missing
from app.web.download import Stored
from app.web.ids import new_id, well_formed
from app.web.paging import Page, fetch_page, invalid_cursor, read_cursor


@dataclass(frozen=True)
class Jobs:
    """One tenant's jobs."""

    engine: Engine
    key_id: str

    def submit(self, spec: JobSpec, idempotency_key: str | None) -> tuple[JobView, bool]:
        """Queue a job; whether it is new, or the one that the idempotency key stands for already.

        Raises `NotFound`, `Conflict` or `Unprocessable`, naming the field.
        """
        digest = hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        with writing(self.engine) as connection:
            job_id = self._answered(connection, idempotency_key, digest)
            new = job_id is None
            if job_id is None:
                job_id = self._enqueue(connection, spec)
                if idempotency_key is not None:
                    repository.remember(connection, self.key_id, idempotency_key, digest, job_id)
            return job_view(self._row(connection, job_id)), new

    def check(self, spec: JobSpec) -> tuple[JobSpec, ModelSummary]:
        """The request with its task decided, and its model, as `submit` would take them; queues nothing and
        raises the same."""
        with reading(self.engine) as connection:
            return self._validated(connection, spec)

    def one(self, job_id: str) -> JobView:
        """The job; raises `NotFound`."""
        with reading(self.engine) as connection:
            return job_view(self._row(connection, job_id))

    def page(self, cursor: str | None, limit: int) -> Page[JobItem]:
        """The newest first."""
        query, start = repository.listing(self.key_id), read_cursor(cursor)
        with reading(self.engine) as connection:
            return fetch_page(connection, query, repository.ORDER, start, limit, job_item)

    def cancel(self, job_id: str) -> JobView:
        """Ask for the end of a job; raises `Conflict` when it has ended already."""
        with writing(self.engine) as connection:
            self._must_exist(connection, job_id)
            if not lifecycle.request_cancel(connection, job_id):
                raise Conflict("job_finished", "The job has ended already.")
            return job_view(self._row(connection, job_id))

    def events(self, job_id: str, cursor: str | None, limit: int) -> Page[EventView]:
        """What happened to the job after the event whose id is `cursor`, oldest first."""
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
            raise invalid_cursor()
        with reading(self.engine) as connection:
            self._must_exist(connection, job_id)
            rows = repository.events(connection, job_id, int(cursor or 0), limit + 1)
        items = [event_view(row) for row in rows[:limit]]
        return Page(items=items, next_cursor=str(items[-1].id) if len(rows) > limit else None)

    def report(self, job_id: str) -> dict[str, Any]:
        """The finished job's report; raises `Conflict` with the reason while there is none."""
        with reading(self.engine) as connection:
            self._must_exist(connection, job_id)
            row = repository.report(connection, self.key_id, job_id)
        if row is None:
            raise _no_job()
        if row.report is None:
            raise _no_report(JobStatus(row.status), row.problem)
        return dict(row.report)

    def artifacts(self, job_id: str) -> list[ArtifactView]:
        """The files that the job made; none before its end."""
        with reading(self.engine) as connection:
            self._must_exist(connection, job_id)
            return [artifact_view(row) for row in repository.artifacts(connection, job_id)]

    def artifact(self, job_id: str, name: str) -> Stored:
        """Where one of the files is; raises `NotFound`."""
        with reading(self.engine) as connection:
            self._must_exist(connection, job_id)
            for row in repository.artifacts(connection, job_id):
                if row.name == name:
                    key = f"artifacts/{job_id}/{row.attempt}/{name}"
                    return Stored(key, name, row.bytes, row.sha256)
        raise NotFound("artifact_not_found", "The job has made no file of this name.")

    def _answered(self, connection: Connection, idempotency_key: str | None, digest: str) -> str | None:
        if idempotency_key is None:
            return None
        if not repository.try_lock(connection, self.key_id, idempotency_key):
            raise Conflict(
                "request_in_flight",
                "Another request with this Idempotency-Key is being answered.",
                hint="Send it again in a moment.",
                field="Idempotency-Key",
                headers={"Retry-After": "1"},
            )
        row = repository.answered(connection, self.key_id, idempotency_key)
        if row is not None and row.request_sha256 != digest:
            raise Unprocessable(
                "idempotency_key_reused",
                "This Idempotency-Key stands for another request.",
                hint="Take a new key for every new job.",
                field="Idempotency-Key",
            )
        return None if row is None else row.job_id

    def _enqueue(self, connection: Connection, spec: JobSpec) -> str:
        resolved, _ = self._validated(connection, spec)
        job_id = new_id("job")
        lifecycle.enqueue(
            connection,
            job_id=job_id,
            key_id=self.key_id,
            kind="compress",
            spec=resolved.model_dump(mode="json"),
            queue="gpu" if spec.device is Device.CUDA else "cpu",
        )
        return job_id

    def _validated(self, connection: Connection, spec: JobSpec) -> tuple[JobSpec, ModelSummary]:
        model = ModelSummary.model_validate(self._summary(connection, MODEL, spec.model, "model"))
        roles = {"train": spec.data.train, "test": spec.data.test}
        data = {
            role: DatasetSummary.model_validate(self._summary(connection, DATASET, named, f"data.{role}"))
            for role, named in roles.items()
            if named is not None
        }
        return resolve(spec, model, data), model

    def _summary(self, connection: Connection, kind: Kind, upload_id: str, field: str) -> Any:
        row = None
        if well_formed(upload_id):
            row = uploads.find_for_job(connection, self.key_id, kind.name, upload_id)
        if row is None:
            raise missing(kind, field)
        if row.status == UploadStatus.READY:
            return row.summary
        raise _unusable(kind, row, field)

    def _row(self, connection: Connection, job_id: str) -> AnyRow:
        row = repository.find(connection, self.key_id, job_id) if well_formed(job_id) else None
        if row is None:
            raise _no_job()
        return row

    def _must_exist(self, connection: Connection, job_id: str) -> None:
        if not well_formed(job_id) or not repository.exists(connection, self.key_id, job_id):
            raise _no_job()


def _no_job() -> NotFound:
    return NotFound("job_not_found", "There is no such job.")


def _unusable(kind: Kind, row: AnyRow, field: str) -> Conflict:
    if row.status == UploadStatus.INSPECTING:
        return Conflict(
            f"{kind.name}_not_ready",
            f"The {kind.noun} is still being inspected.",
            hint=f"Poll `GET /v1/{kind.name}s/{row.id}` until its status is `ready`.",
            field=field,
            headers={"Retry-After": "1"},
        )
    reason = Problem.model_validate(row.problem).detail if row.problem else "It was not admitted."
    return Conflict(
        f"{kind.name}_rejected",
        f"The {kind.noun} was rejected: {reason}",
        hint="Upload a corrected file.",
        field=field,
    )


def _no_report(status: JobStatus, problem: dict[str, Any] | None) -> Conflict:
    if problem is not None:
        reason = Problem.model_validate(problem)
        return Conflict(reason.code, reason.detail, hint=reason.hint, layer=reason.layer, field=reason.field)
    if status is JobStatus.CANCELLED:
        return Conflict("job_cancelled", "The job was cancelled and has no report.")
    return Conflict(
        "not_finished",
        f"The job is {status}; its report comes with its end.",
        hint="Poll the job until its status is final.",
        headers={"Retry-After": "2"},
    )
