"""What the kernel has, and what is done where it has not."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from celery.signals import worker_init
from seccompy import SeccompError

from app.serving import demand_sandbox
from app.settings import Settings
from app.supervisor import CannotStart
from tests.processes import wait_until
from workers import tasks
from workers.sandbox import lock
from workers.sandbox.kernel import Kernel, examine, refusal
from workers.watch import members

WHOLE = Kernel(landlock=7, seccomp=True)
OLD = Kernel(landlock=0, seccomp=True)


@pytest.mark.parametrize("has", [examine()], ids=str)
def test_this_machine_says_what_it_has(has: Kernel) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "workers.sandbox"], check=False, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(has)
    assert found.returncode == (1 if has.missing else 0)


def test_a_kernel_is_described() -> None:
    assert (str(WHOLE), WHOLE.missing) == ("Landlock 7, seccomp", [])
    assert (str(OLD), OLD.missing) == ("no Landlock, seccomp", ["Landlock"])
    assert "lacks Landlock" in refusal(OLD)
    assert "RANKFOLD_SANDBOX=auto" in refusal(OLD)


def test_a_refused_question_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> bool:
        raise SeccompError(1, "Operation not permitted")

    monkeypatch.setattr("seccompy.supported", refuse)
    assert examine().seccomp is False


def test_nothing_is_locked_by_half_where_all_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "examine", lambda: OLD)
    with pytest.raises(lock.CannotLock, match="lacks Landlock"):
        lock.lock(str(tmp_path), required=True, gpu=False)


def test_nothing_is_locked_beside_threads_that_stay_free(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/task"):  # noqa: PTH112
        pytest.skip("no /proc here")
    code = f"""
import threading, time
threading.Thread(target=time.sleep, args=(1,)).start()
from workers.sandbox.lock import CannotLock, lock
try:
    lock({str(tmp_path)!r}, required=False, gpu=False)
except CannotLock as reason:
    print(reason)

"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "other threads" in done.stdout


@pytest.mark.skipif(not examine().seccomp, reason="this kernel has no seccomp")
def test_without_landlock_a_worker_that_hides_keeps_its_environment_to_itself(tmp_path: Path) -> None:
    # Without root's rights, as without them it would be looked at: more of them would hide it, too.
    ready = (
        "from workers.sandbox import lock; lock._drop_capabilities(); lock.hide(); print(flush=True); input()"
    )
    peep = f"""
import sys
from workers.sandbox import lock
from workers.sandbox.kernel import Kernel
lock.examine = lambda: Kernel(landlock=0, seccomp=True)
lock.lock({str(tmp_path)!r}, required=False, gpu=False)
try:
    print(open(f"/proc/{{sys.argv[1]}}/environ").read())
except PermissionError:
    print("refused")
"""
    for code, seen in ((ready, "refused"), (ready.replace("lock.hide();", ""), "SECRET=secret")):
        environment = {**os.environ, "SECRET": "secret"}
        start = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        with start([sys.executable, "-c", code]) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            command = [sys.executable, "-c", peep, str(worker.pid)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            worker.kill()
        assert seen in told


@pytest.mark.skipif(bool(examine().missing), reason=f"this kernel has {examine()}")
def test_whatever_a_job_started_ends_with_it(tmp_path: Path) -> None:
    terms = f"{{'scratch': {str(tmp_path)!r}, 'required': True, 'gpu': False}}"
    code = f"""
import os, signal
from workers.engine.clean_process import Call, prepare, run
from workers.sandbox.lock import lock
prepare(Call(lock, {{**{terms}, "parent": os.getpid(), "forks": True}}), each=Call(lock, {terms}))
lock(**{terms})
run(signal.pause, {{}}, 60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as job:
        wait_until(lambda: [_is_filtered(pid) for pid in members(job.pid)] == 3 * [True], what="all three")
        job.kill()
    wait_until(lambda: not members(job.pid), what="the end of all of them")


@pytest.mark.parametrize(
    ("mode", "found", "said"),
    [
        ("require", WHOLE, "jobs are confined by Landlock 7, seccomp"),
        ("auto", WHOLE, "jobs are confined by Landlock 7, seccomp"),
        ("auto", OLD, "confined by less than it takes: no Landlock, seccomp"),
        ("off", WHOLE, "jobs are not confined"),
    ],
)
def test_a_worker_says_at_its_start_what_confines_jobs(
    mode: str, found: Kernel, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _start(monkeypatch, mode, found)
    assert said in caplog.text


def test_a_worker_does_not_start_where_the_sandbox_is_required_and_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit, match="lacks Landlock"):
        _start(monkeypatch, "require", OLD)


def _is_filtered(pid: int) -> bool:
    try:
        return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _start(monkeypatch: pytest.MonkeyPatch, mode: str, found: Kernel) -> None:
    monkeypatch.setattr(tasks, "get_settings", lambda: Settings.model_validate({"sandbox": mode}))
    monkeypatch.setattr(tasks, "examine", lambda: found)
    monkeypatch.setattr(tasks, "hide", lambda: None)  # the process of the tests is no worker
    worker_init.send(sender=None)


def test_the_service_does_not_start_either(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    required = Settings.model_validate({"sandbox": "require"})
    script = "import sys; sys.exit('it lacks Landlock')"
    monkeypatch.setattr("app.serving.SANDBOX", [sys.executable, "-c", script])
    with pytest.raises(CannotStart, match="it lacks Landlock"):
        demand_sandbox(required)
    demand_sandbox(Settings.model_validate({"sandbox": "auto"}))
