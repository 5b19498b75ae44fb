"""Rows of the tables of jobs as the API shows them."""

from typing import Any

from app.contract.status import Progress
from app.db.rows import AnyRow
from app.jobs.schemas import ArtifactView, EventView, JobItem, JobLinks, JobView
from app.web.moments import moment, moment_or_none

PATH = "/v1/jobs"


def job_item(row: AnyRow) -> JobItem:
    """A job in a listing."""
    return JobItem.model_validate(_fields(row))


def job_view(row: AnyRow) -> JobView:
    """A job on its own."""
    return JobView.model_validate(_fields(row) | {"spec": row.spec, "warnings": row.warnings})


def event_view(row: AnyRow) -> EventView:
    """An event of a job."""
    return EventView(**(dict(row._mapping) | {"at": moment(row.at)}))


def artifact_view(row: AnyRow) -> ArtifactView:
    """A file of a job."""
    return ArtifactView(
        name=row.name,
        format=row.format,
        bytes=row.bytes,
        sha256=row.sha256,
        candidate=row.candidate,
        href=f"{PATH}/{row.job_id}/artifacts/{row.name}",
    )


def _fields(row: AnyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.spec["model"],
        "status": row.status,
        "stage": row.stage,
        "progress": Progress(fraction=row.fraction, eta_seconds=row.eta_seconds),
        "attempt": row.attempt,
        "created_at": moment(row.created_at),
        "started_at": moment_or_none(row.started_at),
        "finished_at": moment_or_none(row.finished_at),
        "problem": row.problem,
        "links": _links(f"{PATH}/{row.id}"),
    }


def _links(path: str) -> JobLinks:
    return JobLinks(
        self=path,
        events=f"{path}/events",
        report=f"{path}/report",
        artifacts=f"{path}/artifacts",
        cancel=f"{path}/cancel",
    )
