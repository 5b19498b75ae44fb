"""ETags: answer 304 when the client has it already (RFC 9110, section 13)."""

import hashlib

from fastapi import Request
from starlette.responses import Response


def quoted(tag: str) -> str:
    """A strong entity tag."""
    return f'"{tag}"'


def not_modified(request: Request, etag: str) -> bool:
    """Whether `If-None-Match` names this entity tag; the comparison is weak."""
    header = request.headers.get("if-none-match", "")
    known = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in known or etag in known


def json_or_304(request: Request, body: bytes) -> Response:
    """The JSON document `body` with its ETag, or 304 where the client named it."""
    headers = {"ETag": quoted(hashlib.sha256(body).hexdigest()[:32]), "Cache-Control": "private, no-cache"}
    if not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
