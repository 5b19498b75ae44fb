"""The rules of uploads: the row exists only with its bytes, and neither goes while a job works on it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from app.blobs import BlobStore
from app.contract.status import UploadStatus
from app.db.rows import AnyRow
from app.db.session import reading, writing
from app.errors import Conflict, NotFound
from app.queue import lifecycle
from app.uploads import repository
from app.uploads.kinds import Kind
from app.uploads.receive import Received
from app.uploads.schemas import UploadItem
from app.web.ids import new_id, well_formed
from app.web.moments import moment
from app.web.paging import Page, fetch_page, read_cursor


@dataclass(frozen=True)
class Uploads:
    """One tenant's models, or data sets."""

    engine: Engine
    blobs: BlobStore
    kind: Kind
    key_id: str

    def add(self, file: Received) -> UploadItem:
        """Keep a received file and queue its inspection; both or neither."""
        upload_id = new_id(self.kind.prefix)
        self.blobs.move_file(blob_key(upload_id), file.path)
        try:
            with writing(self.engine) as connection:
                self._insert(connection, upload_id, file)
                row = self._row(connection, upload_id)
        except BaseException:
            self.blobs.delete(blob_key(upload_id))
            raise
        return UploadItem(**item_fields(row))

    def one(self, upload_id: str) -> AnyRow:
        """The row with its summary; raises `NotFound`."""
        with reading(self.engine) as connection:
            return self._row(connection, upload_id)

    def page(self, cursor: str | None, limit: int) -> Page[UploadItem]:
        """The newest first, without summaries; raises `Unprocessable` for a cursor that is none."""
        query, start = repository.listing(self.key_id, self.kind.name), read_cursor(cursor)
        with reading(self.engine) as connection:
            return fetch_page(
                connection, query, repository.ORDER, start, limit, lambda row: UploadItem(**item_fields(row))
            )

    def names(self, ids: Collection[str]) -> dict[str, str]:
        """The names of those uploads that are there, by id."""
        with reading(self.engine) as connection:
            return repository.names(connection, self.key_id, self.kind.name, ids)

    def remove(self, upload_id: str) -> None:
        """Delete row and bytes; raises `NotFound`, and `Conflict` while a job works on it."""
        with writing(self.engine) as connection:
            if not well_formed(upload_id) or not repository.lock(
                connection, self.key_id, self.kind.name, upload_id
            ):
                raise missing(self.kind)
            job_id = repository.unfinished_job(connection, self.key_id, upload_id)
            if job_id is not None:
                raise Conflict(
                    "upload_in_use",
                    f"A job that has not ended works on this {self.kind.noun}: {job_id}.",
                    hint="Cancel the job or wait for its end, then delete again.",
                )
            repository.delete(connection, upload_id)
        self.blobs.delete(blob_key(upload_id))

    def _insert(self, connection: Connection, upload_id: str, file: Received) -> None:
        repository.insert(
            connection,
            {
                "id": upload_id,
                "key_id": self.key_id,
                "kind": self.kind.name,
                "name": file.name,
                "format": file.format,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "status": UploadStatus.INSPECTING,
            },
        )
        lifecycle.enqueue(
            connection,
            job_id=new_id("job"),
            key_id=self.key_id,
            kind=self.kind.inspection,
            spec={},
            queue="cpu",
            upload_id=upload_id,
        )

    def _row(self, connection: Connection, upload_id: str) -> AnyRow:
        row = None
        if well_formed(upload_id):
            row = repository.find(connection, self.key_id, self.kind.name, upload_id)
        if row is None:
            raise missing(self.kind)
        return row


def blob_key(upload_id: str) -> str:
    """Where an upload's bytes are."""
    return f"uploads/{upload_id}"


def missing(kind: Kind, field: str | None = None) -> NotFound:
    """The problem of an upload that is not there, or not this tenant's."""
    return NotFound(f"{kind.name}_not_found", f"There is no such {kind.noun}.", field=field)


def item_fields(row: AnyRow) -> dict[str, Any]:
    """The fields of an `UploadItem` from its row."""
    fields = dict(row._mapping)
    fields.pop("summary", None)
    return fields | {"created_at": moment(row.created_at)}
