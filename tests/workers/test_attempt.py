"""One attempt with a real child process, a real store and a real database."""

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.session import reading, writing
from app.db.tables import Artifact
from app.queue.lifecycle import Lease, claim, request_cancel
from app.uploads import repository
from tests.app.queue.jobs import KEY, add_job, add_upload, events_of, expire, row_of, upload_of
from tests.processes import wait_until
from tests.workers import fake_child
from tests.workers.documents import SUMMARY
from workers.attempt import Attempt, Bench
from workers.child import OUT_OF_MEMORY
from workers.workspace import Workspace

_NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="this system has no /proc")


def put_upload(bench: Bench, tmp_path: Path, kind: str = "model") -> str:
    upload_id = add_upload(bench.engine, kind)
    file = tmp_path / "upload"
    file.write_bytes(b"bytes")
    bench.store.put_file(f"uploads/{upload_id}", file)
    return upload_id


def new_job(bench: Bench, tmp_path: Path, seed: int = fake_child.WORK) -> str:
    return add_job(bench.engine, model=put_upload(bench, tmp_path), seed=seed)


def attempt(bench: Bench, job_id: str) -> Any:
    job = claim(bench.engine, job_id, "a worker", bench.settings.lease_seconds)
    assert job is not None
    Attempt(bench, job).run()
    return row_of(bench.engine, job_id)


def artifacts(bench: Bench) -> list[Any]:
    with reading(bench.engine) as connection:
        return list(connection.execute(sa.select(*Artifact.__table__.columns)))


def test_a_job_goes_through_its_stages_and_leaves_nothing_behind(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    job_id = new_job(bench, tmp_path)
    row = attempt(bench, job_id)
    assert (row.status, row.stage, row.fraction, row.problem) == ("succeeded", "package", 1.0, None)
    assert row.report["model"].startswith("mdl_")
    assert len(row.warnings) == 6
    assert events_of(bench.engine, job_id).count("stage_finished") == 6
    assert events_of(bench.engine, job_id)[-1] == "succeeded"
    assert list(scratch.iterdir()) == []
    assert bench.store.list("checkpoints") == []


def test_artifacts_are_stored_with_their_digest(bench: Bench, tmp_path: Path) -> None:
    job_id = new_job(bench, tmp_path)
    attempt(bench, job_id)
    (made,) = artifacts(bench)
    key = f"artifacts/{job_id}/1/candidate-0.pt2"
    assert (made.name, made.format, made.candidate) == ("candidate-0.pt2", "pt2", 0)
    assert (made.bytes, len(made.sha256)) == (bench.store.size(key), 64)


def test_every_file_of_a_candidate_is_known_as_its(bench: Bench, tmp_path: Path) -> None:
    workspace = Workspace(bench.store, Lease("job_1", 1, 30.0), tmp_path)
    for name in ("candidate-12.onnx", "candidate-12-int8.onnx", "report.json"):
        (tmp_path / "artifacts" / name).write_bytes(b"bytes")
    made = {it.name: (it.format, it.candidate) for it in workspace.store_artifacts()}
    assert made == {
        "candidate-12.onnx": ("onnx", 12),
        "candidate-12-int8.onnx": ("onnx", 12),
        "report.json": ("json", None),
    }


def test_an_inspection_fills_its_upload(bench: Bench, tmp_path: Path) -> None:
    upload_id = put_upload(bench, tmp_path)
    attempt(bench, add_job(bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(bench.engine, upload_id)
    assert (upload.status, upload.summary["parameters"]) == ("ready", 3)


def test_an_upload_that_is_described_outlives_the_rest_of_its_inspection(
    bench: Bench, tmp_path: Path
) -> None:
    code = (
        "import pathlib, sys, time\n"
        f"pathlib.Path(sys.argv[1], 'result.json').write_text({json.dumps(SUMMARY)!r})\n"
        """print('{"type": "described"}', flush=True)\n"""
        "time.sleep(600)"
    )
    settings = bench.settings.model_copy(update={"inspection_seconds": 3})
    slow = replace(bench, settings=settings, child=(sys.executable, "-c", code))
    upload_id = put_upload(bench, tmp_path)
    row = attempt(slow, add_job(bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(bench.engine, upload_id)
    assert (row.status, row.problem["code"]) == ("failed", "time_limit")
    assert (upload.status, upload.summary["parameters"]) == ("ready", SUMMARY["parameters"])


def test_a_problem_of_the_input_ends_the_job_at_once(bench: Bench, tmp_path: Path) -> None:
    row = attempt(bench, new_job(bench, tmp_path, fake_child.REFUSE))
    assert (row.status, row.attempt, row.problem["code"]) == ("failed", 1, "wrong_input")
    assert (row.problem["field"], row.problem["hint"]) == ("data.train", "Add x.")


@pytest.mark.parametrize(
    ("seed", "code"),
    [
        (fake_child.CRASH, "internal_error"),
        (fake_child.EAT_MEMORY, "out_of_memory"),
        (fake_child.DIE, "internal_error"),
        (fake_child.BABBLE, "internal_error"),
        (fake_child.LINK, "internal_error"),
    ],
)
def test_a_child_that_keeps_dying_fails_the_job_without_a_detail(
    bench: Bench, tmp_path: Path, seed: int, code: str
) -> None:
    job_id = new_job(bench, tmp_path, seed)
    assert attempt(bench, job_id).status == "queued"
    row = attempt(bench, job_id)
    assert (row.status, row.problem["code"]) == ("failed", code)
    assert "/" not in row.problem["detail"]
    assert bench.store.list("artifacts") == []


def test_a_successor_resumes_at_the_last_stage(bench: Bench, tmp_path: Path) -> None:
    job_id = new_job(bench, tmp_path, fake_child.SLOW + 40)
    stopping = threading.Event()

    def stop() -> None:
        wait_until(lambda: "plan" in row_of(bench.engine, job_id).checkpoints)
        stopping.set()

    watcher = threading.Thread(target=stop)
    watcher.start()
    row = attempt(replace(bench, stopping=stopping.is_set), job_id)
    watcher.join()
    assert row.status == "queued"
    assert events_of(bench.engine, job_id)[-1] == "released"
    done = set(row.checkpoints)
    assert attempt(bench, job_id).status == "succeeded"
    history = dict(
        json.loads(b"".join(bench.store.stream(f"artifacts/{job_id}/2/candidate-0.pt2", 0, 1 << 20)))
    )
    assert {stage for stage, number in history.items() if number == 1} == done
    assert set(history.values()) == {1, 2}


def test_what_an_unfinished_stage_saved_is_gone_on_with(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.attempt._SAVE_SECONDS", 0.0)
    patient = replace(bench, settings=bench.settings.model_copy(update={"max_attempts": 3}))
    job_id = new_job(bench, tmp_path, fake_child.SAVE)
    assert attempt(patient, job_id).status == "queued"
    assert f"checkpoints/{job_id}/unfinished/finetune.json" in bench.store.list("checkpoints")
    assert "finetune" not in row_of(bench.engine, job_id).checkpoints
    assert attempt(patient, job_id).status == "queued"
    assert attempt(patient, job_id).status == "succeeded"
    assert bench.store.list("checkpoints") == []


def test_unfinished_stages_are_not_stored_all_the_time(bench: Bench, tmp_path: Path) -> None:
    job_id = new_job(bench, tmp_path, fake_child.SAVE)
    assert attempt(bench, job_id).status == "queued"
    assert not any("unfinished" in key for key in bench.store.list("checkpoints"))


def test_a_cancelled_job_ends_within_a_heartbeat_though_its_child_ignores_it(
    bench: Bench, tmp_path: Path
) -> None:
    job_id = new_job(bench, tmp_path, fake_child.HANG)

    def cancel() -> None:
        wait_until(lambda: row_of(bench.engine, job_id).stage == "inspect")
        with writing(bench.engine) as connection:
            request_cancel(connection, job_id)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    row = attempt(bench, job_id)
    canceller.join()
    heard = row.finished_at - row.started_at
    assert row.status == "cancelled"
    assert heard < 10


def test_a_job_without_an_end_is_stopped_by_the_clock(bench: Bench, tmp_path: Path) -> None:
    impatient = replace(bench, settings=bench.settings.model_copy(update={"job_seconds": 1}))
    row = attempt(impatient, new_job(bench, tmp_path, fake_child.SLOW + 6000))
    assert (row.status, row.problem["code"]) == ("failed", "time_limit")


@pytest.mark.parametrize(
    "seed",
    [fake_child.FILL_DISK, fake_child.LITTER, pytest.param(fake_child.HIDE_ON_DISK, marks=_NEEDS_PROC)],
)
def test_a_job_that_fills_the_disk_is_stopped_and_leaves_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr("workers.watch.MOST_FILES", 1000)
    small = replace(bench, settings=bench.settings.model_copy(update={"job_disk_bytes": 8 << 20}))
    row = attempt(small, new_job(bench, tmp_path, seed))
    assert (row.status, row.problem["code"]) == ("failed", "disk_limit")
    assert "RANKFOLD_JOB_DISK_BYTES" in row.problem["hint"]
    assert list(scratch.iterdir()) == []


@_NEEDS_PROC
def test_a_job_that_crowds_the_machine_is_stopped(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.watch.MOST_THREADS", 200)
    roomy = replace(bench, settings=bench.settings.model_copy(update={"job_memory_bytes": 0}))
    row = attempt(roomy, new_job(bench, tmp_path, fake_child.CROWD))
    assert (row.status, row.problem["code"]) == ("failed", "thread_limit")


def test_a_job_that_used_up_its_processor_time_is_told_so(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Attempt._command
    monkeypatch.setattr(Attempt, "_command", lambda *it: [*command(*it), "--cpu-seconds=2"])
    row = attempt(bench, new_job(bench, tmp_path, fake_child.BURN))
    assert (row.status, row.attempt, row.problem["code"]) == ("failed", 1, "time_limit")


def test_a_worker_takes_the_next_job_after_a_bomb(bench: Bench, tmp_path: Path) -> None:
    once = replace(bench, settings=bench.settings.model_copy(update={"max_attempts": 1}))
    assert attempt(once, new_job(bench, tmp_path, fake_child.EAT_MEMORY)).problem["code"] == "out_of_memory"
    assert attempt(once, new_job(bench, tmp_path)).status == "succeeded"


@pytest.mark.parametrize(
    ("code", "expected"),
    [("import time; time.sleep(600)", "time_limit"), (f"raise SystemExit({OUT_OF_MEMORY})", "out_of_memory")],
)
def test_a_file_that_is_a_bomb_is_rejected_at_the_first_attempt(
    code: str, expected: str, bench: Bench, tmp_path: Path
) -> None:
    settings = bench.settings.model_copy(update={"inspection_seconds": 2})
    strict = replace(bench, settings=settings, child=(sys.executable, "-c", code))
    upload_id = put_upload(bench, tmp_path)
    row = attempt(strict, add_job(bench.engine, "inspect_model", upload_id=upload_id))
    upload = upload_of(bench.engine, upload_id)
    assert (row.attempt, upload.status, upload.problem["code"]) == (1, "rejected", expected)
    assert "file" in upload.problem["detail"]


def test_what_a_job_prints_is_logged_up_to_a_bound_and_cannot_pass_for_anything_else(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="workers.process")
    row = attempt(bench, new_job(bench, tmp_path, fake_child.CHATTER))
    assert row.problem["code"] == "chattered"
    assert 1 << 20 <= len(caplog.text) < 1 << 21
    assert "\x1b" not in caplog.text


def test_a_worker_that_lost_its_job_writes_nothing(bench: Bench, tmp_path: Path) -> None:
    job_id = new_job(bench, tmp_path, fake_child.SLOW + 6000)

    def steal() -> None:
        wait_until(lambda: row_of(bench.engine, job_id).stage == "inspect")
        with writing(bench.engine) as connection:
            connection.execute(sa.text("UPDATE jobs SET attempt = 7, lease_owner = 'another'"))

    thief = threading.Thread(target=steal)
    thief.start()
    row = attempt(bench, job_id)
    thief.join()
    assert (row.status, row.attempt, row.lease_owner) == ("running", 7, "another")
    assert artifacts(bench) == []


def test_an_upload_that_is_withdrawn_ends_its_inspection(bench: Bench, tmp_path: Path) -> None:
    begun, code = tmp_path / "begun", "import pathlib, time; pathlib.Path({!r}).touch(); time.sleep(600)"
    endless = replace(bench, child=(sys.executable, "-c", code.format(str(begun))))
    upload_id = put_upload(bench, tmp_path)
    job = claim(bench.engine, add_job(bench.engine, "inspect_model", upload_id=upload_id), "a worker", 2.0)
    assert job is not None
    inspection = threading.Thread(target=Attempt(endless, job).run)
    inspection.start()
    wait_until(begun.exists)
    with writing(bench.engine) as connection:
        assert repository.lock(connection, KEY, "model", upload_id)
        repository.delete(connection, upload_id)
    inspection.join(10.0)
    assert not inspection.is_alive()


def test_a_deleted_upload_is_a_clear_problem(bench: Bench) -> None:
    row = attempt(bench, add_job(bench.engine, model="mdl_" + "1" * 32))
    assert (row.status, row.problem["code"]) == ("failed", "input_missing")


def test_a_missing_checkpoint_is_worked_out_again(bench: Bench, tmp_path: Path) -> None:
    job_id = new_job(bench, tmp_path)
    claim(bench.engine, job_id, "a worker", 30.0)
    expire(bench.engine, job_id)
    with writing(bench.engine) as connection:
        connection.execute(sa.text("""UPDATE jobs SET status = 'queued', checkpoints = '{"inspect": 1}'"""))
    assert attempt(bench, job_id).status == "succeeded"
    history = json.loads(b"".join(bench.store.stream(f"artifacts/{job_id}/2/candidate-0.pt2", 0, 1 << 20)))
    assert {number for _, number in history} == {2}


def test_the_child_knows_none_of_the_servers_secrets(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKFOLD_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    row = attempt(bench, new_job(bench, tmp_path, fake_child.TELL_ENVIRONMENT))
    environment = json.loads(row.problem["detail"])
    assert environment["OMP_NUM_THREADS"] == "1"
    assert "secret" not in row.problem["detail"]
