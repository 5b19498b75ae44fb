"""`/v1/jobs`."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Request, Response

from app.contract.report import Report
from app.contract.spec import JobSpec
from app.errors import documented
from app.jobs.examples import BODIES
from app.jobs.schemas import ArtifactView, EventView, JobItem, JobView
from app.jobs.service import Jobs
from app.jobs.views import PATH
from app.web.conditional import json_or_304
from app.web.dependencies import Blobs, Database, KeyId
from app.web.download import DOCUMENTED, download
from app.web.ids import PublicId
from app.web.paging import CursorText, Limit, Page

_RETRY_SECONDS = "2"
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "the client has this state: `If-None-Match` named its ETag"}
}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "headers": {
            "Location": {"description": "where the job is", "schema": {"type": "string"}},
            "Retry-After": {"description": "seconds to the next look", "schema": {"type": "integer"}},
            "Idempotency-Replayed": {
                "description": "`true` where the job was there already",
                "schema": {"type": "string"},
            },
        }
    }
}
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="the same key with the same body gives the same job, however often it is sent",
    ),
]
ArtifactName = Annotated[str, Path(description="the file's name, from the list of artifacts")]

router = APIRouter(prefix=PATH, tags=["jobs"], responses=documented(401, 404, 422, 500, 503))


@router.post(
    "",
    status_code=202,
    responses=_ACCEPTED | documented(409, 413),
    operation_id="create_job",
    summary="Compress a model",
)
def create(
    spec: Annotated[JobSpec, Body(openapi_examples=BODIES)],
    response: Response,
    engine: Database,
    key_id: KeyId,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Only `model` is required: the MACs are then halved without data, and fidelity is reported."""
    job, new = Jobs(engine, key_id).submit(spec, idempotency_key)
    response.headers["Location"] = job.links.self
    response.headers["Retry-After"] = _RETRY_SECONDS
    if not new:
        response.headers["Idempotency-Replayed"] = "true"
    return job


@router.get("", operation_id="list_jobs", summary="List the jobs, newest first")
def page(engine: Database, key_id: KeyId, cursor: CursorText = None, limit: Limit = 20) -> Page[JobItem]:
    """Without `spec` and `warnings`, which come with the single job."""
    return Jobs(engine, key_id).page(cursor, limit)


@router.get(
    "/{id}",
    response_model=JobView,
    responses=_NOT_MODIFIED,
    operation_id="get_job",
    summary="How a job is doing",
)
def one(id_: PublicId, request: Request, engine: Database, key_id: KeyId) -> Response:
    """Poll with `If-None-Match`: 304 as long as nothing has changed."""
    return json_or_304(request, Jobs(engine, key_id).one(id_).model_dump_json().encode())


@router.post(
    "/{id}/cancel",
    status_code=202,
    responses=documented(409),
    operation_id="cancel_job",
    summary="Cancel a job",
)
def cancel(id_: PublicId, response: Response, engine: Database, key_id: KeyId) -> JobView:
    """A queued job ends at once, a running one within one heartbeat of its worker."""
    job = Jobs(engine, key_id).cancel(id_)
    response.headers["Location"] = job.links.self
    response.headers["Retry-After"] = _RETRY_SECONDS
    return job


@router.get("/{id}/events", operation_id="list_job_events", summary="What happened to a job, oldest first")
def events(
    id_: PublicId, engine: Database, key_id: KeyId, cursor: CursorText = None, limit: Limit = 100
) -> Page[EventView]:
    """To follow a job, pass the `id` of the last event as `cursor`."""
    return Jobs(engine, key_id).events(id_, cursor, limit)


@router.get(
    "/{id}/report",
    response_model=Report,
    responses=_NOT_MODIFIED | documented(409),
    operation_id="get_job_report",
    summary="What a finished job measured",
)
def report(id_: PublicId, request: Request, engine: Database, key_id: KeyId) -> Response:
    """409 until the job has succeeded; for a failed job, the problem is its own."""
    document = Jobs(engine, key_id).report(id_)
    return json_or_304(request, json.dumps(document, ensure_ascii=False).encode())


@router.get("/{id}/artifacts", operation_id="list_job_artifacts", summary="The files that a job made")
def artifacts(id_: PublicId, engine: Database, key_id: KeyId) -> list[ArtifactView]:
    """Empty until the job has succeeded."""
    return Jobs(engine, key_id).artifacts(id_)


@router.get(
    "/{id}/artifacts/{name}",
    response_class=Response,
    responses=DOCUMENTED | documented(416),
    operation_id="get_job_artifact",
    summary="The bytes of a file that a job made",
)
def artifact(
    id_: PublicId, name: ArtifactName, request: Request, engine: Database, blobs: Blobs, key_id: KeyId
) -> Response:
    """Takes `Range` and `If-None-Match`; the ETag is the SHA-256."""
    return download(request, blobs, Jobs(engine, key_id).artifact(id_, name))
