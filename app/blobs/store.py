"""The blob store: a thin interface over obstore that adds durability and typed absence."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, S3Store

_CHUNK = 4 << 20  # bytes held per stream
_PART = 8 << 20  # S3 takes 10,000 parts: 80 GB
_PARTS_IN_FLIGHT = 4
_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")


class BlobMissing(Exception):
    """No blob has this key."""


def open_store(url: str) -> "BlobStore":
    """The store at `url`: `file:///folder` (made if missing) or `s3://bucket/prefix`.

    S3's credentials, region and endpoint come from the usual `AWS_…` environment variables. Raises
    `ValueError` for any other scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _LocalBlobStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        return BlobStore(S3Store.from_url(url, client_options={"allow_http": True}))
    raise ValueError(f"a blob URL begins with file:// or s3://, not {parts.scheme}://")


class BlobStore:
    """Blobs by key. Keys are slash-separated names of letters, digits, `.`, `_` and `-`.

    A blob appears whole or not at all. Every method may be called from any thread, blocks, and raises
    `ValueError` for a malformed key and `obstore.exceptions.BaseError` when the store itself fails.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put_file(self, key: str, path: Path) -> None:
        """Store a copy of the file at `path`, replacing any blob with this key; durable on return."""
        obstore.put(self._store, _checked(key), path, chunk_size=_PART, max_concurrency=_PARTS_IN_FLIGHT)

    def move_file(self, key: str, path: Path) -> None:
        """Like `put_file`, but the file at `path` is gone afterwards: a rename where that is possible."""
        self.put_file(key, path)
        path.unlink()

    def get_file(self, key: str, path: Path) -> None:
        """Write the blob to the file at `path`; raises `BlobMissing` and then leaves no file."""
        chunks = self.stream(key, 0, self.size(key))
        with path.open("wb") as file:
            file.writelines(chunks)

    def size(self, key: str) -> int:
        """The blob's size in bytes; raises `BlobMissing`."""
        try:
            return obstore.head(self._store, _checked(key))["size"]
        except FileNotFoundError as error:
            raise BlobMissing(key) from error

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes `[start, end)` in chunks of at most 4 MiB; raises `BlobMissing` at the first chunk."""
        # A request per chunk: a single long one would run into the client's timeout on a slow reader.
        for offset in range(start, end, _CHUNK):
            stop = min(offset + _CHUNK, end)
            try:
                yield obstore.get_range(self._store, _checked(key), start=offset, end=stop).to_bytes()
            except FileNotFoundError as error:
                raise BlobMissing(key) from error

    def delete(self, key: str) -> None:
        """Remove the blob; one that is missing already is fine."""
        try:
            obstore.delete(self._store, _checked(key))
        except FileNotFoundError:
            return

    def delete_prefix(self, prefix: str) -> None:
        """Remove every blob below `prefix`, which is one or more whole segments of keys."""
        obstore.delete(self._store, self.list(prefix))

    def list(self, prefix: str) -> list[str]:
        """The keys below `prefix` (whole segments), sorted."""
        pages = obstore.list(self._store, prefix=_checked(prefix.rstrip("/")))
        return sorted(entry["path"] for page in pages for entry in page)


class _LocalBlobStore(BlobStore):
    """A folder. A blob is the file at its key."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder, mkdir=True))
        self._folder = folder

    def put_file(self, key: str, path: Path) -> None:
        super().put_file(key, path)
        target = self._folder / key
        _sync(target)
        _sync(target.parent)

    def move_file(self, key: str, path: Path) -> None:
        target = self._folder / _checked(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(path)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            super().move_file(key, path)
        _sync(target.parent)

    def delete_prefix(self, prefix: str) -> None:
        # Folders go too, and what a killed writer left in them, which a listing does not show.
        shutil.rmtree(self._folder / _checked(prefix.rstrip("/")), ignore_errors=True)


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a blob key: {key!r}")
    return key


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
