"""What uploads look like on the wire."""

from datetime import datetime

from pydantic import Field

from app.contract.base import Contract
from app.contract.problem import Problem
from app.contract.status import UploadStatus


class UploadItem(Contract):
    """An upload in a listing; `problem` says why it was rejected."""

    id: str
    name: str
    format: str
    bytes: int
    sha256: str = Field(description="hexadecimal digest of the bytes")
    status: UploadStatus
    created_at: datetime
    problem: Problem | None = None
