"""`rankfold compress`: a model goes up, its smaller self comes down, and the numbers are printed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from app.client.answers import JobState
from app.client.client import ApiError, Client
from app.client.tables import print_problem, print_report, print_warnings
from app.contract.problem import Problem
from app.contract.report import Report
from app.contract.spec import Decomposition, Device, JobSpec, Output, Quantization, Task
from app.contract.status import JobStatus
from app.keys.service import BOOTSTRAP_FILE
from app.settings import get_settings

UNKNOWN_YET = "mdl_" + "0" * 32

Budgeted = Literal["macs", "parameters", "latency"]
RankSelection = Literal["budget", "fraction", "energy", "vbmf", "cross_validation"]
"""Explicit ranks are given by layer rules, which this command has no options for."""


def compress(  # noqa: PLR0913, PLR0917 -- every parameter is an option of the command line
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="the network, a .pt2 or .onnx file")
    ],
    train: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="data to fit on, .npz")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="data to measure on, .npz")
    ] = None,
    keep: Annotated[
        list[float] | None, typer.Option(help="fraction that remains; several give several candidates")
    ] = None,
    of: Annotated[Budgeted, typer.Option(help="what the fraction is of")] = "macs",
    max_drop: Annotated[
        float | None, typer.Option(help="by how much the metric may fall; in place of --keep")
    ] = None,
    task: Annotated[Task | None, typer.Option(help="what the network is for")] = None,
    method: Annotated[list[Decomposition] | None, typer.Option(help="decompositions allowed")] = None,
    rank_selection: Annotated[RankSelection, typer.Option(help="how ranks are chosen")] = "budget",
    epochs: Annotated[int | None, typer.Option(help="epochs of fine-tuning")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="of fine-tuning")] = None,
    output: Annotated[list[Output] | None, typer.Option(help="formats to make")] = None,
    quantize: Annotated[
        Quantization | None, typer.Option(help="form that every ONNX file is made in besides")
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of every random choice")] = 0,
    device: Annotated[Device, typer.Option(help="where the job runs")] = Device.AUTO,
    layers: Annotated[bool, typer.Option("--layers", help="print the table of layers too")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder the artifacts go to")] = Path("out"),
    url: Annotated[str, typer.Option(envvar="RANKFOLD_URL", help="address of the service")] = "",
    key: Annotated[
        str, typer.Option(envvar="RANKFOLD_KEY", help="API key; else that of the data folder")
    ] = "",
) -> None:
    """Compress a network on a running service, print before and after, and fetch the artifacts."""
    options = {
        "task": task,
        "target": _given({"of": of, "keep": keep, "max_drop": max_drop}),
        "methods": method,
        "ranks": {"selection": rank_selection},
        "finetune": _given({"epochs": epochs, "learning_rate": learning_rate}),
        "outputs": output,
        "quantize": quantize,
        "seed": seed,
        "device": device,
    }
    with _told(Console(stderr=True)), Client(url or _local_url(), key or _local_key()) as client:
        spec = _spec(UNKNOWN_YET, {}, options)  # a wrong option is better told before the uploads
        console = _console()
        ids = _upload(console, client, {"model": model, "train": train, "test": test})
        spec = _spec(ids.pop("model"), ids, options)
        report = _run(console, client, spec, out)
        print_report(console, report, layers=layers)


def _console() -> Console:
    """The terminal; a file or pipe has no width, and tables should not be squeezed into 80 columns there."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def _spec(model: str, data: dict[str, str], options: dict[str, Any]) -> JobSpec:
    """The job's body; raises `ApiError` that names the field that is wrong."""
    try:
        return JobSpec.model_validate({"model": model, "data": data, **_given(options)})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ApiError(Problem.of("invalid_request", f"{first['msg']}.", field=field)) from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, [], {})}


def _local_url() -> str:
    settings = get_settings()
    return f"http://{settings.host}:{settings.port}"


def _local_key() -> str:
    """The key of the service whose data folder is ours, by `RANKFOLD_BOOTSTRAP_KEY` or its file."""
    settings = get_settings()
    if settings.bootstrap_key:
        return settings.bootstrap_key.get_secret_value()
    try:
        return (settings.data_dir / BOOTSTRAP_FILE).read_text().strip()
    except OSError as error:
        hint = "Give one with --key or RANKFOLD_KEY; `rankfold keys` lists and makes them."
        problem = Problem.of("no_key", "There is no API key to talk with.", status=401, hint=hint)
        raise ApiError(problem) from error


@contextmanager
def _told(console: Console) -> Iterator[None]:
    """Print the problem of an `ApiError` and end with status 1."""
    try:
        yield
    except ApiError as error:
        print_problem(console, error.problem)
        raise typer.Exit(1) from error


def _upload(console: Console, client: Client, files: dict[str, Path | None]) -> dict[str, str]:
    """Upload what is given and wait until all of it is admitted; the ids by role."""
    ids: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console) as progress:
        for role, path in files.items():
            if path is not None:
                bar = progress.add_task(f"upload {path.name}", total=path.stat().st_size)
                kind = _kind(role)
                stored = client.upload(kind, path, partial(progress.advance, bar))
                ids[role] = stored.id
    for role, file_id in ids.items():
        client.inspected(_kind(role), file_id)
    return ids


def _kind(role: str) -> Literal["models", "datasets"]:
    return "models" if role == "model" else "datasets"


def _run(console: Console, client: Client, spec: JobSpec, out: Path) -> Report:
    """Submit, follow to the end, fetch every artifact; raises `ApiError` where the job did not succeed."""
    job = client.submit(spec)
    console.print(f"job {job.id}")
    try:
        job = _follow(console, client, job.id)
    except KeyboardInterrupt:
        client.cancel(job.id)
        console.print("The job was asked to stop.")
        raise
    if job.status is not JobStatus.SUCCEEDED:
        default = Problem.of("job_cancelled", f"The job {job.status}.", status=409)
        raise ApiError(job.problem or default)
    print_warnings(console, job.warnings)
    for artifact in client.artifacts(job.id):
        console.print(f"wrote {os.path.relpath(client.download(artifact, out))}")
    return client.report(job.id)


def _follow(console: Console, client: Client, job_id: str) -> JobState:
    """A bar with the stage, the share that is done, the time it took and the time that remains."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remains]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("queued", total=1.0, remains="")
        shown = ""
        for job in client.follow(job_id):
            doing = job.stage if job.status is JobStatus.RUNNING and job.stage else str(job.status)
            done = 1.0 if job.status is JobStatus.SUCCEEDED else job.progress.fraction
            remains = _remains(job.progress.eta_seconds)
            line = f"{doing} {10 * int(10 * done)} %"
            if (
                line != shown and not console.is_terminal
            ):  # a bar in a log file would be drawn at its end only
                console.print(f"{line} {remains}")
            shown = line
            progress.update(bar, description=doing, completed=done, remains=remains)
    return job


def _remains(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02} left"
