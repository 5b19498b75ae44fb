"""The answers of the service that the client reads; fields it does not know are left alone."""

from pydantic import BaseModel, ConfigDict

from app.contract.problem import Notice, Problem
from app.contract.status import JobStatus, Progress, UploadStatus


class Answer(BaseModel):
    """Immutable, and lenient: a newer service may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredFile(Answer):
    """A model or a data set on the service."""

    id: str
    name: str
    format: str
    bytes: int
    sha256: str
    status: UploadStatus
    problem: Problem | None = None


class JobState(Answer):
    """A job, as it stands."""

    id: str
    status: JobStatus
    stage: str | None = None
    progress: Progress = Progress()
    attempt: int = 0
    problem: Problem | None = None
    warnings: list[Notice] = []


class ArtifactFile(Answer):
    """A file that a job made; `href` is where its bytes are."""

    name: str
    format: str
    bytes: int
    sha256: str
    candidate: int | None = None
    href: str
