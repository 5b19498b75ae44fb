"""A client of the REST API: streams files up, follows jobs, brings checked artifacts down."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from uuid import uuid4

import httpx
from pydantic import TypeAdapter, ValidationError

from app.client.answers import ArtifactFile, JobState, StoredFile
from app.contract.problem import Problem
from app.contract.report import Report
from app.contract.spec import JobSpec
from app.contract.status import UploadStatus
from app.plans.schemas import PlanView

CHUNK = 1 << 20
BUSY = frozenset({429, 502, 503, 504})

T = TypeVar("T")
Progressed = Callable[[int], None]
"""Told how many bytes more went through."""


class ApiError(Exception):
    """The service, or the way to it, said no; `problem` says what, where, and the way out."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Client:
    """One connection to a service.

    Every method raises `ApiError`: with the service's problem document, or with code `unreachable` when no
    answer came. Requests that are safe to repeat are repeated for `patience` seconds while the service
    restarts or is busy.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url
        self._patience = patience
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(60.0, connect=5.0),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def upload(
        self, kind: Literal["models", "datasets"], path: Path, progressed: Progressed = lambda _count: None
    ) -> StoredFile:
        """Stream a file to the service; its inspection has then begun, not ended."""
        response = self._once(
            "POST",
            f"/v1/{kind}",
            params={"filename": path.name},
            headers={
                "Content-Length": str(path.stat().st_size),
                "Content-Type": "application/octet-stream",
            },
            content=_chunks(path, progressed),
        )
        return _read(StoredFile, response)

    def inspected(self, kind: Literal["models", "datasets"], file_id: str) -> StoredFile:
        """Wait until an upload was looked at; raises `ApiError` with its problem if it was rejected."""
        while True:
            response = self._get(f"/v1/{kind}/{file_id}")
            stored = _read(StoredFile, response)
            if stored.status is UploadStatus.READY:
                return stored
            if stored.status is UploadStatus.REJECTED:
                raise ApiError(stored.problem or Problem.of("rejected", f"{stored.name} was rejected."))
            time.sleep(_pause(response))

    def plan(self, spec: JobSpec) -> PlanView:
        """What a job would do, as far as the weights alone tell; nothing is run or stored."""
        return _read(PlanView, self._persist("POST", "/v1/plans", json=_body(spec)))

    def submit(self, spec: JobSpec) -> JobState:
        """Create a job; a repetition of the request can not create a second one."""
        headers = {"Idempotency-Key": uuid4().hex}
        return _read(JobState, self._persist("POST", "/v1/jobs", json=_body(spec), headers=headers))

    def follow(self, job_id: str) -> Iterator[JobState]:
        """The job's state, again and again at the pace the service asks for; the last one is final."""
        etag, state = "", None
        while state is None or not state.status.final:
            response = self._get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag} if etag else {})
            if response.status_code != httpx.codes.NOT_MODIFIED:
                etag = response.headers.get("ETag", "")
                state = _read(JobState, response)
                yield state
            if state is None or not state.status.final:
                time.sleep(_pause(response))

    def cancel(self, job_id: str) -> None:
        """Ask the service to end a job; it does so within one heartbeat."""
        self._persist("POST", f"/v1/jobs/{job_id}/cancel")

    def report(self, job_id: str) -> Report:
        """The report of a job that succeeded."""
        return _read(Report, self._get(f"/v1/jobs/{job_id}/report"))

    def artifacts(self, job_id: str) -> list[ArtifactFile]:
        """The files a job made."""
        return _read(list[ArtifactFile], self._get(f"/v1/jobs/{job_id}/artifacts"))

    def download(self, artifact: ArtifactFile, folder: Path) -> Path:
        """Fetch an artifact into `folder`; it gets its name only once its SHA-256 was found right."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / Path(artifact.name).name
        partial = target.with_name(target.name + ".part")
        try:
            found = self._fetch(artifact.href, partial)
            if found != artifact.sha256:
                detail = f"{artifact.name} arrived with another SHA-256 than the service announced."
                raise ApiError(Problem.of("corrupted_download", detail, hint="Download it again."))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _fetch(self, href: str, path: Path) -> str:
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", href) as response, path.open("wb") as file:
                if response.is_error:
                    response.read()
                    raise ApiError(_problem(response))
                for chunk in response.iter_bytes(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return digest.hexdigest()

    def _get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self._persist("GET", path, headers=headers or {})

    def _persist(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The request, repeated while the service cannot be reached or asks for patience."""
        deadline = time.monotonic() + self._patience
        pause = 0.25
        while True:
            try:
                return self._once(method, path, **options)
            except ApiError as error:
                if error.problem.status not in BUSY or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise ApiError(_problem(response))
        return response

    def _unreachable(self, error: httpx.TransportError) -> ApiError:
        detail = f"No service answers at {self._url} ({type(error).__name__})."
        hint = "Start one with `rankfold serve`, or name another with --url."
        return ApiError(Problem.of("unreachable", detail, status=503, hint=hint))


def _body(spec: JobSpec) -> dict[str, Any]:
    """What was said of the job; the rest is the service's to fill in."""
    return spec.model_dump(mode="json", exclude_unset=True)


def _chunks(path: Path, progressed: Progressed) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            progressed(len(chunk))


def _pause(response: httpx.Response) -> float:
    """Seconds until the next question: what the service asks for, within [0.2, 30]."""
    asked = response.headers.get("Retry-After", "")
    return min(max(float(asked), 0.2), 30.0) if asked.isdigit() else 0.5


def _read(kind: type[T], response: httpx.Response) -> T:
    try:
        return TypeAdapter(kind).validate_json(response.content, extra="ignore")
    except ValidationError as error:
        detail = f"The answer to {response.request.method} {response.request.url.path} was not understood."
        hint = "Is this the address of a rankfold service, and of this version?"
        raise ApiError(Problem.of("unexpected_answer", detail, status=502, hint=hint)) from error


def _problem(response: httpx.Response) -> Problem:
    try:
        return _read(Problem, response)
    except ApiError:
        detail = f"The service answered {response.status_code} without saying why."
        return Problem.of("unexpected_answer", detail, status=response.status_code)
