"""The routes that models and data sets share."""

from collections.abc import Callable
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from app.db.rows import AnyRow
from app.errors import documented
from app.uploads.kinds import Kind
from app.uploads.receive import received
from app.uploads.schemas import UploadItem
from app.uploads.service import Uploads, blob_key
from app.web.dependencies import AppSettings, Blobs, Database, KeyId
from app.web.download import DOCUMENTED, Stored, download
from app.web.ids import PublicId
from app.web.paging import CursorText, Limit, Page

_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}
_ACCEPTED = {
    "headers": {
        "Location": {"description": "where the upload's status is", "schema": {"type": "string"}},
        "Retry-After": {"description": "seconds to the next look", "schema": {"type": "integer"}},
    }
}
Filename = Annotated[
    str | None, Query(description="the file's name, where the body is the bytes alone", max_length=1024)
]


class UploadRoutes:
    """POST, GET, list, content and DELETE of one kind of upload; `show` makes `view` of a row."""

    def __init__(self, kind: Kind, path: str, view: type[UploadItem], show: Callable[[AnyRow], UploadItem]):
        self._kind = kind
        self._path = path
        self._view = view
        self._show = show

    def router(self) -> APIRouter:
        """The routes below the path."""
        noun, name = self._kind.noun, self._kind.name
        router = APIRouter(
            prefix=self._path, tags=[f"{noun}s"], responses=documented(401, 404, 422, 500, 503)
        )
        router.add_api_route(
            "", self.upload, methods=["POST"], status_code=202, response_model=UploadItem,
            responses={202: _ACCEPTED, **documented(400, 413, 415)}, openapi_extra=_BODY,
            response_model_exclude_none=True, summary=f"Upload a {noun} ({self._kind.accepted})",
            operation_id=f"upload_{name}",
        )  # fmt: skip
        router.add_api_route(
            "", self.page, response_model=Page[UploadItem], response_model_exclude_none=False,
            summary=f"List the {noun}s, newest first", operation_id=f"list_{name}s",
        )  # fmt: skip
        router.add_api_route(
            "/{id}", self.one, response_model=self._view, response_model_exclude_none=True,
            summary=f"What is known of a {noun}", operation_id=f"get_{name}",
        )  # fmt: skip
        router.add_api_route(
            "/{id}", self.remove, methods=["DELETE"], status_code=204, responses=documented(409),
            summary=f"Delete a {noun}", operation_id=f"delete_{name}",
        )  # fmt: skip
        router.add_api_route(
            "/{id}/content", self.content, response_class=Response,
            responses=DOCUMENTED | documented(416),
            summary=f"The bytes of a {noun}", operation_id=f"get_{name}_content",
        )  # fmt: skip
        return router

    async def upload(
        self,
        request: Request,
        response: Response,
        engine: Database,
        blobs: Blobs,
        settings: AppSettings,
        key_id: KeyId,
        filename: Filename = None,
    ) -> UploadItem:
        """Send the file as the form field `file`, or its bytes alone with `?filename=`.

        It is looked at by a worker afterwards: poll `Location` until `status` is `ready` or `rejected`.
        """
        uploads = Uploads(engine, blobs, self._kind, key_id)
        async with received(
            request, self._kind, filename or "", settings.spool_dir, settings.max_upload_bytes
        ) as file:
            item = await to_thread.run_sync(uploads.add, file)
        response.headers["Location"] = f"{self._path}/{item.id}"
        response.headers["Retry-After"] = "1"
        return item

    def page(
        self,
        engine: Database,
        blobs: Blobs,
        key_id: KeyId,
        cursor: CursorText = None,
        limit: Limit = 20,
    ) -> Page[UploadItem]:
        """Summaries are left out; they come with the single upload."""
        return Uploads(engine, blobs, self._kind, key_id).page(cursor, limit)

    def one(self, id_: PublicId, engine: Database, blobs: Blobs, key_id: KeyId) -> UploadItem:
        """Its status, and what the inspection found once it is `ready`."""
        return self._show(Uploads(engine, blobs, self._kind, key_id).one(id_))

    def remove(self, id_: PublicId, engine: Database, blobs: Blobs, key_id: KeyId) -> None:
        """Only when no unfinished job works on it; finished jobs keep their reports and artifacts."""
        Uploads(engine, blobs, self._kind, key_id).remove(id_)

    def content(
        self, id_: PublicId, request: Request, engine: Database, blobs: Blobs, key_id: KeyId
    ) -> Response:
        """The bytes as they were uploaded; takes `Range` and `If-None-Match`."""
        row = Uploads(engine, blobs, self._kind, key_id).one(id_)
        return download(request, blobs, Stored(blob_key(row.id), row.name, row.bytes, row.sha256))
