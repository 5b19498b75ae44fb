"""A function in a fresh interpreter."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers.engine import callees
from workers.engine.clean_process import ProcessFailed, run
from workers.engine.errors import EngineError

ROOT = Path(__file__).parents[3]


def test_arguments_go_in_and_the_result_comes_out_whatever_is_printed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    arguments = {"number": 1.5, "text": "ünïcode", "nested": {"list": [1, None, True]}}
    assert run(callees.echo, arguments, 30) == arguments
    assert "noise on standard output" in caplog.text
    assert "noise on standard error" in caplog.text


def test_the_process_is_fresh_and_its_environment_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKFOLD_BROKER_URL", "redis://:secret@localhost")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = run(callees.surroundings, {}, 30)
    assert "secret" not in str(seen["environment"])
    assert seen["environment"]["OMP_NUM_THREADS"] == "1"
    assert seen["torch"] is False


def test_an_error_for_the_user_arrives_whole() -> None:
    with pytest.raises(EngineError) as caught:
        run(callees.refuse, {}, 30)
    error = caught.value
    assert (error.code, error.detail, error.hint, error.layer, error.field) == (
        "no_such_thing",
        "There is no such thing.",
        "Ask for another.",
        "fc",
        None,
    )


@pytest.mark.parametrize("function", [callees.stumble, callees.die])
def test_a_crash_is_typed_and_tells_nothing_of_the_server(function: Callable[[], None]) -> None:
    with pytest.raises(ProcessFailed) as caught:
        run(function, {}, 30)
    assert caught.value.code == "process_crashed"
    assert "/" not in caught.value.detail


def test_a_crash_after_the_answer_does_not_take_it_back() -> None:
    assert run(callees.crash_at_exit, {}, 30) == "answered"


def test_a_process_that_hangs_is_killed() -> None:
    start = time.monotonic()
    with pytest.raises(ProcessFailed) as caught:
        run(callees.idle, {}, 1)
    assert caught.value.code == "process_timed_out"
    assert time.monotonic() - start < 20


def test_an_interpreter_can_be_prepared_by_who_cannot_start_programs_later() -> None:
    script = """
import json, os, subprocess
from tests.workers.engine import callees
from workers.engine import clean_process
from workers.engine.clean_process import Call, ProcessFailed, prepare, run
prepare(Call(callees.note, {"where": "prepared"}), each=Call(callees.note, {"where": "each"}))
def refuse(*_, **__):
    raise PermissionError("no programs any more")
subprocess.Popen = refuse
found = [run(callees.notes, {}, 30) for _ in range(2)]
try:
    run(callees.die, {}, 30)
except ProcessFailed as error:
    found.append(error.code)
print(json.dumps([*found, run(callees.notes, {}, 30)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    notes = ["prepared", "each"]
    assert json.loads(done.stdout) == [notes, notes, "process_crashed", notes]


def test_the_limits_of_the_parent_hold_and_do_not_stand_in_the_way() -> None:
    script = """
import json, resource
for limit, value in ((resource.RLIMIT_AS, 4 << 30), (resource.RLIMIT_FSIZE, 1 << 20),
                     (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, 60)):
    resource.setrlimit(limit, (value, value))
from tests.workers.engine import callees
from workers.engine.clean_process import run
print(json.dumps(run(callees.surroundings, {}, 30)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["address_space"] == 4 << 30
