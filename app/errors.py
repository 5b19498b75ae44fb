"""Errors as the interface: a tree of exceptions, each one problem document (RFC 9457).

Whatever goes wrong, in a route, before it or in spite of it, leaves as `application/problem+json`, and never
with the text of an exception that was not written for users.
"""

import errno
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from obstore.exceptions import BaseError as StorageError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from app.contract.problem import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
OUTAGES = (OperationalError, InterfaceError, PoolTimeout, StorageError)

_log = structlog.get_logger(__name__)


class ApiError(Exception):
    """A request that cannot be answered as asked; subclasses fix the HTTP status."""

    status = 500

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        layer: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = Problem.of(code, detail, status=self.status, hint=hint, layer=layer, field=field)
        self.headers = dict(headers or {})


class BadRequest(ApiError):
    """The request's form is broken."""

    status = 400


class Unauthorized(ApiError):
    """No valid key."""

    status = 401


class NotFound(ApiError):
    """There is nothing here, or it belongs to somebody else."""

    status = 404


class Conflict(ApiError):
    """Right in itself, but not in the present state."""

    status = 409


class TooLarge(ApiError):
    """More bytes than are accepted."""

    status = 413


class UnsupportedMedia(ApiError):
    """A file of a kind that is not accepted."""

    status = 415


class RangeNotSatisfiable(ApiError):
    """A range outside of the file."""

    status = 416


class Unprocessable(ApiError):
    """Understood, but it cannot be done."""

    status = 422


class Unavailable(ApiError):
    """A part of the service is down; the same request may succeed soon."""

    status = 503

    def __init__(self, code: str, detail: str) -> None:
        hint = f"Nothing was changed. Send the request again in {RETRY_SECONDS} seconds."
        super().__init__(code, detail, hint=hint, headers={"Retry-After": str(RETRY_SECONDS)})


class StorageFull(ApiError):
    """No room for the bytes."""

    status = 507


class InternalError(ApiError):
    """A fault of the service."""

    status = 500


class _FrameworkError(ApiError):
    """What the framework raises on its own, such as for an unknown address."""

    _KNOWN = {
        400: ("bad_request", "The request cannot be read."),
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "This address does not take this method."),
        413: ("body_too_large", "The request's body is too large."),
    }

    def __init__(self, error: HTTPException) -> None:
        self.status = error.status_code
        status = HTTPStatus(error.status_code)
        code, detail = self._KNOWN.get(status, (status.name.lower(), f"{status.phrase}."))
        super().__init__(code, detail, headers=error.headers)


def install(app: FastAPI) -> None:
    """Make every foreseen error of `app`'s routes a problem document; `LastResort` does so for the others."""
    app.add_exception_handler(ApiError, _handle)
    app.add_exception_handler(HTTPException, _handle)
    app.add_exception_handler(RequestValidationError, _handle)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    for outage in OUTAGES:
        app.add_exception_handler(outage, _handle)


def response_to(error: Exception) -> Response:
    """The answer to `error`: its problem document. An unforeseen one becomes a bare 500."""
    known = _translated(error)
    body = known.problem.model_dump_json(exclude_none=True)
    return Response(body, known.problem.status, known.headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses, for its OpenAPI description."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


async def _handle(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {**(error.headers or {}), "Allow": _allowed(request)}
    return response_to(error)


def _allowed(request: Request) -> str:
    """The methods that an address takes. The framework tells those of the first of its routes alone."""
    return ", ".join(
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )


async def _handle_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it, but the log shows how the request ended


def _translated(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            unreadable = isinstance(error.__cause__, UnicodeDecodeError | RecursionError)
            return _invalid_json() if unreadable else _FrameworkError(error)
        case StorageError() | OperationalError() | InterfaceError() | PoolTimeout():
            return _outage(error)
        case OSError(errno=errno.ENOSPC):
            _log.error("disk_full")
            return StorageFull("storage_full", "The service has no room left for this.")
        case _:
            _log.error("internal_error", exc_info=error)
            return InternalError(
                "internal_error",
                "The service made a mistake; the request may have been fine.",
                hint="Report it with the X-Request-ID of this answer.",
            )


def _outage(error: Exception) -> ApiError:
    part = "storage" if isinstance(error, StorageError) else "database"
    _log.error("outage", part=part, error=str(error))
    return Unavailable(f"{part}_unavailable", f"The {part} does not answer.")


def _invalid(error: RequestValidationError) -> ApiError:
    problems = error.errors()
    if isinstance(error.body, bytes) or any(problem["type"] == "json_invalid" for problem in problems):
        return _invalid_json()
    messages = _readable(problems, error.body)
    # Of a union only the branch that went deepest says what is wrong.
    field = max(messages, key=lambda name: name.count(".") if name else 0)
    related = [name for name in messages if not field.startswith(f"{name}.")]
    detail = " ".join(f"{name or 'body'}: {messages[name]}." for name in related)
    return Unprocessable("invalid_request", detail, field=field or None)


def _invalid_json() -> ApiError:
    hint = "Send JSON, with the header `Content-Type: application/json`."
    return Unprocessable("invalid_json", "The body is not valid JSON.", hint=hint)


def _readable(problems: Any, body: Any) -> dict[str, str]:
    """A message for each field, by its path (`layers.0.rank`).

    Of several it is the first that does not merely say that the value is of another branch's type.
    """
    messages: dict[str, str] = {}
    mistyped: dict[str, str] = {}
    for problem in problems:
        message = problem["msg"].removeprefix("Value error, ")
        group = mistyped if problem["type"].endswith("_type") else messages
        group.setdefault(_path(problem["loc"], problem["type"], body), message)
    return mistyped | messages


def _path(location: tuple[str | int, ...], kind: str, body: Any) -> str:
    """The path of a field, without the names of unions' branches that pydantic puts in between."""
    source, *steps = location
    if source != "body":
        return ".".join(map(str, steps))
    names, value = [], body
    for step in steps:
        inside = (
            step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        )
        if inside:
            value = value[step]
        if inside or (kind == "missing" and step is steps[-1]):
            names.append(str(step))
    return ".".join(names)
