from collections.abc import Iterator

import pytest

from app.client import client as client_module
from app.client.client import Client
from tests.app.client.service import KEY, Service, running


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(client_module, "_pause", lambda _response: 0.01)
    with running() as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, KEY, patience=5.0) as client:
        yield client
