"""The dashboard in a real browser, where there is one."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import Engine

from app.db.session import make_engine, reading
from app.db.tables import Job
from app.queue import lifecycle
from app.queue.lifecycle import Ending, Lease, Pulse
from app.settings import Settings
from tests.app.dashboard.reports import MADE, report
from tests.app.server import Server, running_api
from tests.app.tenants import MODEL_SUMMARY, ZIP

CHROMIUM = shutil.which("chromium")
WIDTHS = [375, 1280]
LONG = "a_rather_long_name_of_a_model_that_somebody_exported_in_a_hurry_final_v2.pt2"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@dataclass
class Service:
    """A running API, and hands that do a worker's work in its database."""

    server: Server
    engine: Engine

    def submit(self, name: str) -> str:
        """A queued job on a model of this name."""
        with httpx.Client(base_url=self.server.url, headers=self.server.headers) as client:
            model = client.post("/v1/models", params={"filename": name}, content=ZIP).json()["id"]
            with reading(self.engine) as connection:
                inspection = connection.execute(sa.select(Job.id).where(Job.upload_id == model)).scalar_one()
            self.finish(self.claim(inspection), Ending.succeeded(MODEL_SUMMARY))
            return str(client.post("/v1/jobs", json={"model": model}).json()["id"])

    def claim(self, job_id: str) -> Lease:
        """Take a job up."""
        claimed = lifecycle.claim(self.engine, job_id, "a test", 3600.0)
        assert claimed is not None
        return claimed.lease

    def beat(self, lease: Lease, stage: str, fraction: float) -> None:
        """Tell how far the job is."""
        lifecycle.heartbeat(self.engine, lease, Pulse(stage=stage, fraction=fraction, eta_seconds=9))

    def finish(self, lease: Lease, ending: Ending) -> None:
        """End the job."""
        assert lifecycle.finish(self.engine, lease, ending)


@dataclass
class Visit:
    """A page, and everything about it that should not be."""

    page: Page
    service: Service
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note errors of the console and requests that leave the service or fail."""
        self.page.on("console", lambda told: self._note(told.type in {"error", "warning"}, told.text))
        self.page.on("pageerror", lambda error: self._note(True, str(error)))
        self.page.on(
            "request", lambda asked: self._note(not asked.url.startswith(self.service.server.url), asked.url)
        )
        self.page.on(
            "requestfailed", lambda asked: self._note("ABORTED" not in str(asked.failure), asked.url)
        )

    def open(self, path: str) -> None:
        """Go to a page; it must fit the window's width."""
        self.page.goto(self.service.server.url + path)
        root = "document.documentElement"
        assert self.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), f"{path} is too wide"

    def _note(self, wrong: bool, what: str) -> None:
        if wrong:
            self.wrong.append(what)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("dashboard")
    with running_api(folder) as server:
        engine = make_engine(Settings(data_dir=folder).resolved_database_url)
        yield Service(server, engine)
        engine.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def visit(request: pytest.FixtureRequest, chromium: Browser, service: Service) -> Iterator[Visit]:
    """Somebody who has logged in by the form, at two widths; leaves with nothing to complain of."""
    context = chromium.new_context(viewport={"width": request.param, "height": 800})
    visit = Visit(context.new_page(), service)
    visit.watch()
    visit.open("/")
    visit.page.get_by_label("API key").fill(service.server.secret)
    visit.page.get_by_role("button", name="Log in").click()
    expect(visit.page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    yield visit
    context.close()
    assert visit.wrong == []


def test_a_job_can_be_watched_from_the_list_to_its_end(visit: Visit) -> None:
    job_id = visit.service.submit(LONG)
    link = visit.page.locator(f"#to-{job_id}")
    expect(link).to_be_visible(timeout=10_000)  # without a reload
    visit.open("/")
    link.click()
    expect(visit.page.get_by_text("waiting for a worker")).to_be_visible()
    lease = visit.service.claim(job_id)
    visit.service.beat(lease, "finetune", 0.62)
    expect(visit.page.get_by_role("progressbar")).to_have_attribute("value", "0.62", timeout=10_000)
    visit.open(f"/jobs/{job_id}")
    visit.service.finish(lease, Ending.succeeded(report(0.5), MADE))
    expect(visit.page.get_by_role("heading", name="Before and after")).to_be_visible(timeout=10_000)
    visit.open(f"/jobs/{job_id}")


def test_wide_tables_scroll_within_themselves(visit: Visit) -> None:
    job_id = visit.service.submit("model.pt2")
    visit.service.finish(visit.service.claim(job_id), Ending.succeeded(report(0.75, 0.5, 0.35, 0.25), MADE))
    visit.open(f"/jobs/{job_id}")
    table = visit.page.get_by_role("region", name="Before and after").last
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")
    expect(visit.page.get_by_role("img", name="Top-1 against parameters")).to_be_visible()


def test_logging_out_leads_to_the_login(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Log out").click()
    expect(visit.page.get_by_label("API key")).to_be_visible()
    visit.open("/")
    expect(visit.page.get_by_label("API key")).to_be_visible()


def test_the_ready_link_leads_in_and_leaves_the_address(chromium: Browser, service: Service) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{service.server.url}/login?key={service.server.secret}")
        assert page.url == f"{service.server.url}/"
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
