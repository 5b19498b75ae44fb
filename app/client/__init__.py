"""The REST API from the other side: a client class, and the commands `compress` and `plan`."""

from app.client.answers import ArtifactFile, JobState, StoredFile
from app.client.client import ApiError, Client

__all__ = ["ApiError", "ArtifactFile", "Client", "JobState", "StoredFile"]
