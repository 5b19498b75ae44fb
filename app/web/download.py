"""Downloads of blobs: ranges, entity tags, 304 (RFC 9110, sections 13 and 14)."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from app.blobs import BlobMissing, BlobStore
from app.errors import NotFound, RangeNotSatisfiable
from app.web.conditional import not_modified, quoted

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the bytes; `ETag` is their SHA-256",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {
        "description": "the bytes of `Range`",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "the client has these bytes: `If-None-Match` named their SHA-256"},
}


@dataclass(frozen=True)
class Stored:
    """A blob as the database knows it."""

    key: str
    name: str
    bytes: int
    sha256: str


def download(request: Request, blobs: BlobStore, stored: Stored) -> Response:
    """The blob as an attachment, or the one range asked for, or 304; raises `RangeNotSatisfiable`."""
    etag = quoted(stored.sha256)
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(stored.name, safe='')}",
    }
    if not_modified(request, etag):
        return Response(status_code=304, headers=headers)
    _must_exist(blobs, stored)
    start, end = 0, stored.bytes
    wanted = request.headers.get("range")
    span = _span(wanted, stored.bytes) if wanted and _range_applies(request, etag) else None
    if span is not None:
        start, end = span
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.bytes}"
    headers["Content-Length"] = str(end - start)
    chunks = blobs.stream(stored.key, start, end)
    return StreamingResponse(chunks, 206 if span else 200, headers, "application/octet-stream")


def _must_exist(blobs: BlobStore, stored: Stored) -> None:
    try:
        blobs.size(stored.key)
    except BlobMissing as error:
        raise NotFound("content_missing", "The bytes are not in the storage any more.") from error


def _range_applies(request: Request, etag: str) -> bool:
    return request.headers.get("if-range", etag) == etag


def _span(header: str, size: int) -> tuple[int, int] | None:
    """The half-open span of a `Range` of one part; nothing for what may be ignored."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None  # several parts or another unit: the whole is a valid answer
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    if start >= end:
        raise RangeNotSatisfiable(
            "range_not_satisfiable",
            f"The file has {size} bytes; {header} is outside of it.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end
