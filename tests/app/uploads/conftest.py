"""A real API process."""

from collections.abc import Iterator

import pytest

from tests.app.server import Server, running_api


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running_api(folder, RANKFOLD_MAX_UPLOAD_BYTES=str(4 << 30)) as server:
        yield server
