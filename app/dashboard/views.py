"""What the pages show, read through the services that the API uses too."""

from dataclasses import dataclass

from sqlalchemy import Engine

from app.blobs import BlobStore
from app.comparison import Cell, Row, compare, int8, resources
from app.contract.report import Candidate, Report
from app.contract.status import JobStatus, Stage
from app.dashboard.plots import Plot, quality_against_parameters, training_curves
from app.jobs.schemas import ArtifactView, JobItem, JobView
from app.jobs.service import Jobs
from app.uploads.kinds import MODEL
from app.uploads.service import Uploads

PAGE = 25  # jobs
HEADLINES = ("Parameters", "MACs", "ONNX Runtime", "Top-1", "Perplexity", "RMSE")


@dataclass(frozen=True)
class Listed:
    """A job in the list, with its model's name; a deleted model is known by its id."""

    job: JobItem
    model: str


@dataclass(frozen=True)
class Listing:
    """A page of jobs; `cursor` leads to the next."""

    jobs: list[Listed]
    cursor: str | None


@dataclass(frozen=True)
class StageState:
    """A stage on the way through a job: `done`, `now` or `ahead`."""

    name: str
    state: str


@dataclass(frozen=True)
class Results:
    """What a finished job found, ready to be laid out."""

    report: Report
    rows: list[Row]
    resources: list[Row]
    int8: list[Row]
    plots: list[Plot]
    artifacts: list[ArtifactView]

    def headlines(self, candidate: Candidate) -> list[tuple[str, Cell]]:
        """The changes that matter most of one candidate."""
        number = self.report.candidates.index(candidate)
        chosen = [row for row in self.rows if row.label.startswith(HEADLINES)]
        return [(row.label, row.candidates[number]) for row in chosen if row.candidates[number].change]


@dataclass(frozen=True)
class Opened:
    """One job's page."""

    job: JobView
    model: str
    stages: list[StageState]
    results: Results | None


@dataclass(frozen=True)
class Viewer:
    """One tenant, looking."""

    engine: Engine
    blobs: BlobStore
    key_id: str

    def listing(self, cursor: str | None) -> Listing:
        """Jobs, the newest first; raises `Unprocessable` for a cursor that is none."""
        page = Jobs(self.engine, self.key_id).page(cursor, PAGE)
        names = self._model_names({job.model for job in page.items})
        return Listing([Listed(job, names.get(job.model, job.model)) for job in page.items], page.next_cursor)

    def job(self, job_id: str) -> Opened:
        """A job and, once it has succeeded, what it found; raises `NotFound`."""
        jobs = Jobs(self.engine, self.key_id)
        job = jobs.one(job_id)
        name = self._model_names({job.model}).get(job.model, job.model)
        results = None
        if job.status is JobStatus.SUCCEEDED:
            results = _results(Report.model_validate(jobs.report(job_id)), jobs.artifacts(job_id))
        return Opened(job, name, _stages(job), results)

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end; raises `NotFound`, or `Conflict` when it has ended already."""
        Jobs(self.engine, self.key_id).cancel(job_id)

    def _model_names(self, ids: set[str]) -> dict[str, str]:
        return Uploads(self.engine, self.blobs, MODEL, self.key_id).names(ids)


def _results(report: Report, artifacts: list[ArtifactView]) -> Results:
    plots = [
        quality_against_parameters(report),
        training_curves(report.candidates, "loss"),
        training_curves(report.candidates, "metric"),
    ]
    return Results(
        report=report,
        rows=compare(report),
        resources=resources(report),
        int8=int8(report),
        plots=[plot for plot in plots if plot],
        artifacts=artifacts,
    )


def _stages(job: JobView) -> list[StageState]:
    order = list(Stage)
    if job.status is JobStatus.SUCCEEDED:
        return [StageState(stage, "done") for stage in order]
    current = order.index(job.stage) if job.stage else -1
    return [
        StageState(stage, "done" if place < current else "now" if place == current else "ahead")
        for place, stage in enumerate(order)
    ]
