"""What every blob store promises, on a folder and on S3."""

import hashlib
import os
from pathlib import Path

import pytest

from app.blobs import BlobMissing, BlobStore, open_store

KEY = "artifacts/job_1/2/model.pt2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_a_stored_file_comes_back_the_same(store: BlobStore, file: Path, tmp_path: Path) -> None:
    store.put_file(KEY, file)
    store.get_file(KEY, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert store.size(KEY) == 10


def test_a_file_of_several_parts_comes_back_the_same(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(20_000_003))
    store.put_file(KEY, path)
    digest, chunks = hashlib.sha256(), 0
    for chunk in store.stream(KEY, 0, store.size(KEY)):
        digest.update(chunk)
        chunks += 1
        assert len(chunk) <= 4 << 20
    assert chunks == 5
    assert digest.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_putting_again_replaces(store: BlobStore, file: Path) -> None:
    store.put_file(KEY, file)
    file.write_bytes(b"other")
    store.put_file(KEY, file)
    assert b"".join(store.stream(KEY, 0, 5)) == b"other"


def test_moving_takes_the_file_away(store: BlobStore, file: Path) -> None:
    store.move_file(KEY, file)
    assert not file.exists()
    assert store.size(KEY) == 10


@pytest.mark.parametrize(("start", "end", "expected"), [(0, 10, b"0123456789"), (3, 5, b"34"), (5, 5, b"")])
def test_a_range_is_half_open(store: BlobStore, file: Path, start: int, end: int, expected: bytes) -> None:
    store.put_file(KEY, file)
    assert b"".join(store.stream(KEY, start, end)) == expected


def test_what_is_missing_says_so(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        store.size(KEY)
    with pytest.raises(BlobMissing):
        list(store.stream(KEY, 0, 1))
    with pytest.raises(BlobMissing):
        store.get_file(KEY, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_deleting_twice_is_fine(store: BlobStore, file: Path) -> None:
    store.put_file(KEY, file)
    store.delete(KEY)
    store.delete(KEY)
    assert store.list("artifacts") == []


def test_a_prefix_is_whole_segments(store: BlobStore, file: Path) -> None:
    for key in ("checkpoints/job_1/1/plan", "checkpoints/job_1/2/plan", "checkpoints/job_10/1/plan"):
        store.put_file(key, file)
    assert store.list("checkpoints/job_1") == ["checkpoints/job_1/1/plan", "checkpoints/job_1/2/plan"]
    store.delete_prefix("checkpoints/job_1/")
    assert store.list("checkpoints") == ["checkpoints/job_10/1/plan"]
    store.delete_prefix("checkpoints/job_7")
    assert store.list("checkpoints") == ["checkpoints/job_10/1/plan"]


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "uploads/../../x", "a//b", "a/.", "a/b c", "ü", "a\n", "a/"]
)
def test_a_malformed_key_is_refused(store: BlobStore, file: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a blob key"):
        store.put_file(key, file)
    with pytest.raises(ValueError, match="not a blob key"):
        store.move_file(key, file)
    with pytest.raises(ValueError, match="not a blob key"):
        store.size(key)


def test_only_folders_and_s3_are_stores() -> None:
    with pytest.raises(ValueError, match="gs://"):
        open_store("gs://bucket")
