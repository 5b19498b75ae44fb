"""From the wire to a temporary file: flat memory, and the earliest refusal of what will not be kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread
from fastapi import Request

from app.errors import TooLarge, Unprocessable
from app.uploads.form import FIELD, FormFile
from app.uploads.kinds import HEAD_BYTES, Kind
from app.uploads.spool import Spool

_BUFFER = 4 << 20  # bytes gathered before a thread writes them
_FORM_OVERHEAD = 64 << 10  # bytes of a form that are not the file's
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Received:
    """A complete file at `path`, which goes away with the context it was received in."""

    path: Path
    name: str
    format: str
    bytes: int
    sha256: str


@asynccontextmanager
async def received(
    request: Request, kind: Kind, filename: str, folder: Path, limit: int
) -> AsyncIterator[Received]:
    """Receive the request's body, raw or as a form's `file`, into a temporary file below `folder`.

    `filename` is that of a raw body; a form names its own. The file is removed at the end whatever happens,
    unless it was moved. Raises `TooLarge` as soon as `limit` bytes are passed, `UnsupportedMedia` as soon as
    the first bytes are there, `BadRequest` / `Unprocessable` for a form that is not one.
    """
    _refuse_announced(request, limit)
    chunks = _limited(request.stream(), limit + _FORM_OVERHEAD, limit)
    if _is_form(request):
        form = FormFile(request.headers["content-type"], chunks)
        await form.find()
        filename, chunks = form.filename or filename, form.read()
    name = _clean(filename)
    with Spool(folder) as spool:
        recognised = await _fill(spool, _limited(chunks, limit, limit), kind, name)
        yield Received(spool.path, name, recognised, spool.bytes, spool.sha256)


def _refuse_announced(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    overhead = _FORM_OVERHEAD if _is_form(request) else 0
    if announced.isdecimal() and int(announced) > limit + overhead:
        raise _too_large(limit)


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _limited(chunks: AsyncIterator[bytes], most: int, limit: int) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in chunks:
        seen += len(chunk)
        if seen > most:
            raise _too_large(limit)
        yield chunk


async def _fill(spool: Spool, chunks: AsyncIterator[bytes], kind: Kind, name: str) -> str:
    """Write everything to the spool; the format, recognised before more than its head is awaited."""
    buffer, recognised = bytearray(), ""
    async for chunk in chunks:
        buffer += chunk
        if not recognised and len(buffer) >= HEAD_BYTES:
            recognised = kind.recognise(name, bytes(buffer[:HEAD_BYTES]))
        if len(buffer) >= _BUFFER:
            await to_thread.run_sync(spool.write, buffer)
            buffer = bytearray()
    recognised = recognised or kind.recognise(name, bytes(buffer))
    await to_thread.run_sync(spool.write, buffer)
    return recognised


def _clean(filename: str) -> str:
    """The name alone: no folders, nothing that does not print, at most 255 characters."""
    base = filename.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in base if character.isprintable()).strip()
    if printable.strip(".") == "":
        raise Unprocessable(
            "filename_missing",
            "The file has no name, and its name tells its format.",
            hint="Send the bytes with `?filename=model.pt2`, or a form whose part `file` has a file name.",
            field="filename" if not filename else FIELD,
        )
    return printable[-_LONGEST_NAME:]


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        "upload_too_large",
        f"An upload may have {limit} bytes.",
        hint="Whoever runs the service can raise RANKFOLD_MAX_UPLOAD_BYTES.",
    )
