"""Attacks from a job's real process, in the sandbox and, to see that they are attacks, outside of it."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.contract.spec import JobSpec
from tests.workers.sandbox import attacks
from workers.messages import Failed, Order
from workers.process import ChildProcess
from workers.sandbox.kernel import examine

ROOT = Path(__file__).parents[3]
REFUSED = {"EPERM", "EACCES", "ENOSYS", "EXDEV"}
# Denied by Landlock alone, of the attacks.
BY_LANDLOCK = {
    *("read a file", "read through the scratch folder", "list a folder", "write a file", "make a file"),
    *("delete a file", "move a file in", "share memory", "list processes"),
    *("read the parent's environment", "read the parent's command", "read the parent's folder"),
    "open the parent's memory",
}
_TRAILER = """
import json
from workers.engine.errors import EngineError
raise EngineError("attacked", json.dumps(attempt(json.loads({targets!r}))))
"""


@dataclass(frozen=True)
class Place:
    """Where attacks find something to hurt."""

    targets: dict[str, Any]
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]]

    def is_untouched(self) -> bool:
        """Whether everything is as it was laid out."""
        files = {path.name: path.read_text() for path in self.folder.iterdir() if path.is_file()}
        there = {"secret": "secret", "canary": "canary", "deletable": "", "movable": ""}
        alive = all(process.poll() is None for process in self.processes.values())
        return files == there and alive and (self.folder / "canary").stat().st_mode & 0o777 == 0o644


@contextmanager
def laid_out() -> Iterator[Place]:
    """Files, listeners and processes, all of this user."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rankfold-attacked-")))
        for name, text in {"secret": "secret", "canary": "canary", "deletable": "", "movable": ""}.items():
            (folder / name).write_text(text)
        (folder / "canary").chmod(0o644)
        (folder / "sockets").mkdir()
        addresses: list[Any] = [
            ("127.0.0.1", 0),
            str(folder / "sockets" / "socket"),
            f"\0rankfold-{os.getpid()}-{folder.name}",
        ]
        listening = []
        for address in addresses:
            family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
            listener = stack.enter_context(socket.socket(family))
            listener.bind(address)
            listener.listen()
            listening.append(listener.getsockname())
        processes = {name: subprocess.Popen(["/bin/sleep", "300"]) for name in ("victim", "prey")}
        for process in processes.values():
            stack.callback(process.wait)
            stack.callback(process.kill)
        files = {name: str(folder / name) for name in ("secret", "canary", "deletable")}
        pids = {name: process.pid for name, process in processes.items()}
        targets = {**files, **pids, "folder": str(folder), "parent": os.getpid()}
        targets |= {"port": listening[0][1], "socket": listening[1], "abstract": addresses[2]}
        yield Place(targets, folder, processes)


def attack(place: Place, workspace: Path, sandbox: str) -> dict[str, Any]:
    """What a job's process found."""
    for name in ("tmp", "inputs"):
        (workspace / name).mkdir()
    targets = json.dumps(place.targets)
    (workspace / "attack.py").write_text(
        Path(attacks.__file__).read_text() + _TRAILER.format(targets=targets)
    )
    confined = "" if sandbox == "off" else "yes"
    order = Order(
        job_id="job_1",
        kind="compress",
        attempt=1,
        spec=JobSpec.model_validate({"model": "mdl_" + "0" * 32, "device": "cpu"}),
        formats={"targets": targets, "confined": confined},
    )
    (workspace / "order.json").write_text(order.model_dump_json())
    limits = ["--memory-bytes=4294967296", "--cpu-seconds=60", "--file-bytes=1048576", f"--sandbox={sandbox}"]
    command = [sys.executable, "-P", "-m", "tests.workers.sandbox.attacker", str(workspace)]
    child = ChildProcess([*command, f"--parent={os.getpid()}", *limits], workspace)
    try:
        told = [message for message in child.messages(0.2) if isinstance(message, Failed)]
        assert child.wait() == 0
    finally:
        child.stop()
    found: dict[str, Any] = json.loads(told[0].problem.detail)
    return found


@pytest.fixture(scope="module")
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RANKFOLD_DATABASE_URL", "postgresql://user:secret@host/db")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield


@pytest.fixture(scope="module")
def outside(_environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The attacks without the sandbox."""
    with laid_out() as place:
        return attack(place, tmp_path_factory.mktemp("outside"), "off")


@pytest.fixture(scope="module")
def inside(_environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The attacks in the sandbox, and whether they left a trace."""
    with laid_out() as place, (place.folder / "secret").open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        found = attack(place, tmp_path_factory.mktemp("inside"), "auto")
        return {**found, "untouched": place.is_untouched()}


@pytest.fixture(autouse=True)
def _what_this_machine_has(request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params.get("name", "") if hasattr(request.node, "callspec") else ""
    kernel = examine()
    if name in BY_LANDLOCK and not kernel.landlock:
        pytest.skip("this kernel has no Landlock")
    if name not in BY_LANDLOCK and not kernel.seccomp:
        pytest.skip("this kernel has no seccomp")


@pytest.mark.parametrize("name", sorted(attacks.ATTACKS))
def test_an_attack_works_outside(outside: dict[str, Any], name: str) -> None:
    assert outside["attacks"][name] == "done"


@pytest.mark.parametrize("name", sorted(attacks.ATTACKS))
def test_an_attack_fails_inside(inside: dict[str, Any], name: str) -> None:
    assert inside["attacks"][name] in REFUSED


@pytest.mark.parametrize("name", sorted(attacks.ATTACKS))
def test_an_attack_fails_in_a_clean_process(inside: dict[str, Any], name: str) -> None:
    assert inside["clean"][name] in REFUSED


@pytest.mark.parametrize("name", [*attacks.CALLS, "x32", "TIOCSTI"])
def test_a_call_is_refused_whatever_its_arguments(inside: dict[str, Any], name: str) -> None:
    assert inside["calls"][name] in {"EPERM", "ENOSYS"}


def test_nothing_is_hurt(inside: dict[str, Any]) -> None:
    assert inside["untouched"] is True


def test_what_a_job_needs_works(inside: dict[str, Any]) -> None:
    assert inside["good"] == {"files": True, "threads": True, "modules": True, "itself": True}


def test_nothing_is_inherited_but_pipes(inside: dict[str, Any]) -> None:
    kinds = {target.partition(":")[0] for target in inside["open"].values()}
    assert {kind for kind in kinds if not kind.startswith("/proc/")} == {"pipe", "/dev/null"}
    assert len(inside["open"]) <= 9


def test_the_environment_holds_no_secret(inside: dict[str, Any]) -> None:
    assert "secret" not in str(inside["environment"])
    assert not [name for name in inside["environment"] if name.startswith(("RANKFOLD", "AWS"))]
