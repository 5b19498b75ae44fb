"""What jobs look like on the wire."""

from datetime import datetime
from typing import Any

from pydantic import Field

from app.contract.base import Contract
from app.contract.problem import Notice, Problem
from app.contract.spec import JobSpec
from app.contract.status import JobStatus, Progress, Stage


class JobLinks(Contract):
    """Where everything about a job is."""

    self: str
    events: str
    report: str
    artifacts: str
    cancel: str


class JobItem(Contract):
    """A job in a listing. `attempt` counts how often a worker has taken it up."""

    id: str
    model: str
    status: JobStatus
    stage: Stage | None
    progress: Progress
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    problem: Problem | None
    links: JobLinks


class JobView(JobItem):
    """A job; `spec` is the request with its defaults filled in."""

    spec: JobSpec
    warnings: list[Notice]


class EventView(Contract):
    """Something that happened to a job. `data` depends on `kind`."""

    id: int
    attempt: int
    kind: str
    data: dict[str, Any] | None
    at: datetime


class ArtifactView(Contract):
    """A file that a job made; `candidate` is its place in the report's candidates."""

    name: str
    format: str
    bytes: int
    sha256: str = Field(description="hexadecimal digest of the bytes")
    candidate: int | None
    href: str
