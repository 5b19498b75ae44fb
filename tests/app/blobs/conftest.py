"""Both kinds of store, each real and empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.blobs import BlobStore, open_store
from tests.s3 import BUCKET, environment, s3_server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "folder":
        return open_store((tmp_path / "a folder").as_uri())
    for name, value in environment(request.getfixturevalue("s3")).items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/{tmp_path.name}")
