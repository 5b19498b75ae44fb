import pytest
from fastapi.testclient import TestClient

from app.db.session import writing
from app.keys import service
from tests.app.tenants import Tenant


@pytest.mark.parametrize("path", ["/", "/jobs/job_" + "0" * 32])
def test_strangers_are_sent_to_the_login(browser: TestClient, path: str) -> None:
    response = browser.get(path)
    assert (response.status_code, response.headers["location"]) == (303, "/login")


def test_a_fragment_takes_the_whole_page_to_the_login(browser: TestClient) -> None:
    response = browser.get("/", headers={"HX-Request": "true"})
    assert response.headers["hx-redirect"] == "/login"
    assert response.text == ""


def test_a_wrong_key_is_told(browser: TestClient) -> None:
    response = browser.post("/login", data={"key": "wrong"})
    assert response.status_code == 401
    assert "unknown or was revoked" in response.text
    assert "set-cookie" not in response.headers


def test_the_cookie_is_kept_from_scripts_and_other_sites(browser: TestClient, tenant: Tenant) -> None:
    response = browser.post("/login", data={"key": f" {tenant.secret}\n"})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert browser.get("/").status_code == 200


def test_a_secure_connection_gets_a_cookie_for_secure_connections(
    browser: TestClient, tenant: Tenant
) -> None:
    browser.base_url = "https://testserver"
    assert "secure" in browser.post("/login", data={"key": tenant.secret}).headers["set-cookie"].lower()


@pytest.mark.parametrize("site", [None, "none", "same-origin"])
def test_the_ready_link_leads_straight_in(browser: TestClient, tenant: Tenant, site: str | None) -> None:
    headers = {"Sec-Fetch-Site": site} if site else {}
    response = browser.get("/login", params={"key": tenant.secret}, headers=headers)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_log_anybody_in(browser: TestClient, tenant: Tenant, site: str) -> None:
    response = browser.get("/login", params={"key": tenant.secret}, headers={"Sec-Fetch-Site": site})
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    assert tenant.secret not in response.text


def test_logging_out_forgets_the_key(visitor: TestClient) -> None:
    assert visitor.post("/logout").headers["location"] == "/login"
    assert visitor.get("/").status_code == 303


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
@pytest.mark.parametrize("path", ["/login", "/logout", "/jobs/job_" + "0" * 32 + "/cancel"])
def test_forms_of_other_sites_are_refused(visitor: TestClient, path: str, headers: dict[str, str]) -> None:
    response = visitor.post(path, data={"key": "any"}, headers=headers)
    assert response.status_code == 400
    assert "another site" in response.text


def test_a_form_of_our_own_is_taken_from_browsers_without_fetch_metadata(visitor: TestClient) -> None:
    assert visitor.post("/logout", headers={"Origin": "http://testserver"}).status_code == 303


def test_a_revoked_key_ends_the_session(visitor: TestClient, tenant: Tenant) -> None:
    with writing(tenant.engine) as connection:
        assert service.revoke(connection, tenant.key_id)
    assert visitor.get("/").headers["location"] == "/login"
