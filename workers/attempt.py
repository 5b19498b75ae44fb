"""One attempt at one job: workspace, child, persistence, and the judgement of how it ended."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy import Engine

from app.blobs import BlobMissing, BlobStore
from app.contract.problem import Problem
from app.contract.report import Report
from app.contract.spec import JobSpec
from app.contract.status import JobStatus, Stage
from app.contract.summary import DatasetSummary, ModelSummary
from app.db.session import reading
from app.db.tables import Job, Upload
from app.queue.lifecycle import (
    Claimed,
    Ending,
    Happened,
    Verdict,
    describe,
    finish,
    release,
    retry,
)
from app.settings import Settings
from workers import messages, problems
from workers.child import OUT_OF_MEMORY
from workers.heart import Heart
from workers.latencies import Latencies, machine
from workers.messages import Order
from workers.patience import AWAY, patiently
from workers.process import ChildProcess
from workers.watch import Watch
from workers.workspace import Workspace, scratch

CHILD = (sys.executable, "-P", "-m", "workers.child")
_TICK_SECONDS = 0.2
_RELEASE_SECONDS = 5.0  # how long a worker that stops waits for the next checkpoint
_SAVE_SECONDS = 60.0  # between two times that an unfinished stage is stored, which may be gigabytes
_MOST_WARNINGS = 1000
_RESULTS: dict[str, type[BaseModel]] = {
    "compress": Report,
    "inspect_model": ModelSummary,
    "inspect_dataset": DatasetSummary,
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What a worker works with. `child` is the command that starts a job's process."""

    settings: Settings
    engine: Engine
    store: BlobStore
    stopping: Callable[[], bool]
    child: Sequence[str] = CHILD


@dataclass(frozen=True)
class Died:
    """The attempt ended without a result; another may do better."""

    problem: Problem


class Left(Enum):
    """The attempt ended and the job goes on elsewhere."""

    RELEASED = "released"
    LOST = "lost"


Outcome = Ending | Died | Left


class Attempt:
    """From a claimed job to its next state. `run` is called once and raises nothing but a lost database."""

    def __init__(self, bench: Bench, job: Claimed) -> None:
        self._bench = bench
        self._job = job
        self._heart = Heart(bench.engine, job)
        self._said: messages.Succeeded | messages.Failed | None = None
        self._release_at: float | None = None
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Work, and write how it ended."""
        self._heart.start()
        try:
            outcome = self._outcome()
        finally:
            self._heart.stop()
        patiently(lambda: self._conclude(self._settled(outcome)), self._bench.stopping)
        try:
            sweep(self._bench)
        except AWAY:
            _log.warning("could not delete old checkpoints; the next attempt will")

    def _outcome(self) -> Outcome:
        try:
            with scratch() as root:
                return self._work(Workspace(self._bench.store, self._job.lease, root))
        except BlobMissing:
            return Ending.failed(problems.INPUT_MISSING)
        except AWAY:
            _log.exception("gave up waiting for the storage")
            return Left.RELEASED if self._bench.stopping() else Died(problems.STORAGE_UNAVAILABLE)
        except Exception:  # ours, or a child that breaks the protocol: no detail is for the user
            _log.exception("an attempt failed")
            return Died(problems.INTERNAL_ERROR)

    def _work(self, workspace: Workspace) -> Outcome:
        self._prepare(workspace)
        child = ChildProcess(self._command(workspace.root), workspace.root)
        try:
            if (interruption := self._listen(child, workspace)) is not None:
                return interruption
            return self._judge(child.wait(), workspace)
        finally:
            child.stop()

    def _prepare(self, workspace: Workspace) -> None:
        inputs = self._patiently(self._inputs)
        for role, (upload_id, _) in inputs.items():
            self._patiently(partial(workspace.fetch_input, role, upload_id))
        done = self._patiently(lambda: workspace.fetch_checkpoints(self._job.checkpoints))
        unfinished = next((stage for stage in Stage if stage not in done), None)
        if unfinished is not None:
            self._patiently(lambda: workspace.fetch_saved(unfinished))
        order = Order(
            job_id=self._job.lease.job_id,
            kind=self._job.kind,
            attempt=self._job.lease.attempt,
            spec=self._spec(),
            formats={role: format_ for role, (_, format_) in inputs.items()},
            done=done,
            threads=self._threads(),
        )
        workspace.write_order(order)
        if order.spec is not None and order.spec.target.of == "latency":
            workspace.write_latencies(self._patiently(self._latencies.known))

    @cached_property
    def _latencies(self) -> Latencies:
        return Latencies(self._bench.engine, self._job.key_id, machine())

    def _spec(self) -> JobSpec | None:
        return JobSpec.model_validate(self._job.spec) if self._job.kind == "compress" else None

    def _inputs(self) -> dict[str, tuple[str, str]]:
        """The uploads by role, each with its format; raises `BlobMissing` for one that was deleted."""
        spec = self._spec()
        roles = {"upload": self._job.upload_id}
        if spec is not None:
            roles = {"model": spec.model, "train": spec.data.train, "test": spec.data.test}
        wanted = {role: upload_id for role, upload_id in roles.items() if upload_id is not None}
        with reading(self._bench.engine) as connection:
            query = sa.select(Upload.id, Upload.format).where(Upload.id.in_(wanted.values()))
            formats = {row.id: row.format for row in connection.execute(query)}
        if not formats.keys() >= set(wanted.values()):
            raise BlobMissing("an upload was deleted")
        return {role: (upload_id, formats[upload_id]) for role, upload_id in wanted.items()}

    @property
    def _inspects(self) -> bool:
        return self._job.kind != "compress"

    def _seconds(self) -> int:
        settings = self._bench.settings
        return settings.inspection_seconds if self._inspects else settings.job_seconds

    def _threads(self) -> int:
        return self._bench.settings.threads or os.cpu_count() or 1

    def _command(self, root: Path) -> list[str]:
        settings = self._bench.settings
        limits = {
            "parent": os.getpid(),
            "memory-bytes": settings.job_memory_bytes,
            "cpu-seconds": self._seconds() * self._threads(),
            # The largest file a job writes: its model four times, as fine-tuning holds it.
            "file-bytes": 5 * settings.max_upload_bytes,
            "sandbox": settings.resolved_sandbox,
        }
        return [*self._bench.child, str(root), *(f"--{name}={value}" for name, value in limits.items())]

    def _listen(self, child: ChildProcess, workspace: Workspace) -> Outcome | None:
        """Follow the child to its end, or to the reason to stop it."""
        deadline = time.monotonic() + self._seconds()
        watch = Watch(workspace.root, child.pid, self._bench.settings.job_disk_bytes)
        for message in child.messages(_TICK_SECONDS):
            if message is not None:
                self._take(message, workspace)
            if time.monotonic() > deadline:
                return self._out_of_time()
            if (excess := watch.excess()) is not None:
                return Ending.failed(excess)
            if (interruption := self._interruption(message)) is not None:
                return interruption
        return None

    def _take(self, message: messages.Message, workspace: Workspace) -> None:
        match message:
            case messages.StageStarted(stage=stage):
                self._heart.tell(Happened("stage_started", {"stage": stage}), stage=stage)
            case messages.Advanced(fraction=fraction, eta_seconds=eta_seconds):
                self._heart.tell(fraction=fraction, eta_seconds=eta_seconds)
            case messages.StageSaved(stage=stage):
                self._save(stage, workspace)
            case messages.StageFinished(stage=stage):
                self._keep(stage, workspace)
            case messages.Noticed(notice=notice):
                known = self._heart.pulse.warnings
                if notice not in known and len(known) < _MOST_WARNINGS:
                    self._heart.tell(warnings=[*known, notice])
            case messages.Timed(signature=signature, ms=ms):
                self._patiently(lambda: self._latencies.remember(signature, ms))
            case messages.Described():
                found, lease = self._result(workspace), self._job.lease
                self._patiently(lambda: describe(self._bench.engine, lease, found))
            case messages.Succeeded() | messages.Failed():
                self._said = message

    def _keep(self, stage: Stage, workspace: Workspace) -> None:
        """Store a checkpoint, and only then name it in the row."""
        self._patiently(lambda: workspace.keep_stage(stage))
        checkpoints = {**(self._heart.pulse.checkpoints or {}), stage: self._job.lease.attempt}
        self._heart.tell(Happened("stage_finished", {"stage": stage}), checkpoints=checkpoints)

    def _save(self, stage: Stage, workspace: Workspace) -> None:
        if time.monotonic() - self._saved_at >= _SAVE_SECONDS:
            self._patiently(lambda: workspace.save_stage(stage))
            self._saved_at = time.monotonic()

    def _interruption(self, message: messages.Message | None) -> Outcome | None:
        if self._heart.verdict is not Verdict.GO_ON:
            return _told(self._heart.verdict)
        if not self._bench.stopping():
            return None
        now = time.monotonic()
        self._release_at = self._release_at or now + _RELEASE_SECONDS
        at_checkpoint = isinstance(message, messages.StageFinished)
        return Left.RELEASED if at_checkpoint or now >= self._release_at else None

    def _judge(self, status: int, workspace: Workspace) -> Outcome:
        """What the end of a child means that was not stopped."""
        if isinstance(self._said, messages.Failed):
            return Ending.failed(self._said.problem)
        if self._said is None or status != 0:
            _log.warning("job %s: its process ended with status %d", self._job.lease.job_id, status)
            return self._death(status)
        result = self._result(workspace)
        made = self._patiently(workspace.store_artifacts)
        return Ending.succeeded(result, made)

    def _result(self, workspace: Workspace) -> dict[str, Any]:
        return _document(_RESULTS[self._job.kind].model_validate_json(workspace.result()))

    def _death(self, status: int) -> Outcome:
        """What a process that ended by itself, with nothing said, died of."""
        if status == -signal.SIGXCPU:
            return self._out_of_time()
        if status == OUT_OF_MEMORY and self._inspects:  # and would be again: a file that is made for it
            return Ending.failed(problems.HEAVY_FILE)
        causes = {OUT_OF_MEMORY: problems.OUT_OF_MEMORY, -signal.SIGKILL: problems.KILLED}
        return Died(causes.get(status, problems.INTERNAL_ERROR))

    def _out_of_time(self) -> Ending:
        return Ending.failed(problems.SLOW_FILE if self._inspects else problems.TIME_LIMIT)

    def _settled(self, outcome: Outcome) -> Outcome:
        """Store the last news; a cancellation or a loss that comes to light outweighs the outcome."""
        verdict = self._heart.beat()
        return outcome if verdict is Verdict.GO_ON else _told(verdict)

    def _conclude(self, outcome: Outcome) -> None:
        engine, lease = self._bench.engine, self._job.lease
        match outcome:
            case Ending():
                if finish(engine, lease, outcome):
                    self._delete_leftovers(outcome)
            case Died(problem=problem):
                retry(engine, lease, problem, self._bench.settings.max_attempts)
            case Left.RELEASED:
                release(engine, lease)
            case Left.LOST:
                pass
        _log.info("job %s, attempt %d: %s", lease.job_id, lease.attempt, _name(outcome))

    def _delete_leftovers(self, ending: Ending) -> None:
        """Delete the artifacts that attempts stored which did not come to their success."""
        lease = self._job.lease
        first_kept = lease.attempt + (ending.status is not JobStatus.SUCCEEDED)
        for attempt in range(1, first_kept):
            self._bench.store.delete_prefix(f"artifacts/{lease.job_id}/{attempt}")

    def _patiently(self, action: Callable[[], Any]) -> Any:
        return patiently(action, lambda: self._bench.stopping() or self._heart.verdict is not Verdict.GO_ON)


def sweep(bench: Bench) -> None:
    """Delete the checkpoints of the jobs that have ended or are gone."""
    stored = {key.split("/")[1] for key in bench.store.list("checkpoints")}
    going = Job.id.in_(stored) & Job.status.in_((JobStatus.QUEUED, JobStatus.RUNNING))
    with reading(bench.engine) as connection:
        ended = stored - set(connection.scalars(sa.select(Job.id).where(going)))
    for job_id in ended:
        bench.store.delete_prefix(f"checkpoints/{job_id}")


def _told(verdict: Verdict) -> Outcome:
    return Ending.cancelled() if verdict is Verdict.CANCEL else Left.LOST


def _document(result: BaseModel) -> dict[str, Any]:
    # By way of text: only there does a number that is no number become null.
    document: dict[str, Any] = json.loads(result.model_dump_json())
    return document


def _name(outcome: Outcome) -> str:
    match outcome:
        case Ending(status=status):
            return status
        case Died(problem=problem):
            return f"died ({problem.code})"
        case Left():
            return outcome.value
