import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.app.tenants import Tenant


@pytest.fixture
def browser(app: FastAPI, anybody: TestClient) -> TestClient:
    """Somebody who is not logged in; redirects are looked at, not followed."""
    client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
    client.portal = anybody.portal
    return client


@pytest.fixture
def visitor(browser: TestClient, tenant: Tenant) -> TestClient:
    """The tenant, logged in."""
    assert browser.post("/login", data={"key": tenant.secret}).status_code == 303
    return browser
