"""The states that uploads and jobs go through."""

from enum import StrEnum

from app.contract.base import Contract


class UploadStatus(StrEnum):
    """A model or a data set: bytes stored, then looked at by a worker, then ready or rejected."""

    INSPECTING = "inspecting"
    READY = "ready"
    REJECTED = "rejected"


class JobStatus(StrEnum):
    """A job: the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class Stage(StrEnum):
    """The stages of a compression job, in the order they run; each ends in a checkpoint."""

    INSPECT = "inspect"
    PLAN = "plan"
    DECOMPOSE = "decompose"
    FINETUNE = "finetune"
    MEASURE = "measure"
    PACKAGE = "package"


class Progress(Contract):
    """How far a job is: `fraction` of the whole in [0, 1], and seconds that remain where known."""

    fraction: float = 0.0
    eta_seconds: float | None = None
