"""What `rankfold serve` consists of, and what its commands show."""

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

from pydantic import SecretStr
from rich.table import Table
from sqlalchemy.exc import OperationalError

from app.broker import BrokerMissing, server_command, socket_path
from app.db.migrate import upgrade
from app.db.session import make_engine
from app.keys import service
from app.settings import Settings, get_settings
from app.supervisor import CannotStart, Part, Supervisor, demand_free, only_instance, say

SANDBOX = (sys.executable, "-P", "-m", "workers.sandbox")
"""Fails with the reason where jobs cannot be confined as they must be."""

_CLI = (sys.executable, "-m", "app.cli")
# Without this, each of the threads that stream files keeps freed memory for itself.
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}


def serve() -> None:
    """Migrate, then run broker, API and worker until stopped; raises `CannotStart`."""
    settings = get_settings()
    with only_instance(settings.data_dir), _broker_socket(settings) as socket_file:
        demand_free(settings.host, settings.port)
        demand_sandbox(settings)
        secret = _prepare_database(settings)
        supervisor = Supervisor(parts(settings, socket_file), settings.data_dir)
        supervisor.run(when_ready=partial(_greet, settings, secret))


def parts(settings: Settings, socket_file: Path) -> list[Part]:
    """The service's programs, the broker only where no other is set."""
    shared = {"RANKFOLD_DATA_DIR": str(settings.data_dir.resolve())}
    programs = []
    if not settings.broker_url:
        shared["RANKFOLD_BROKER_URL"] = f"redis+socket://{socket_file}"
        programs.append(_broker(settings, socket_file))
    return [
        *programs,
        Part("api", [*_CLI, "api"], shared | _FEW_ARENAS, ready=partial(_answers, settings)),
        # The only worker hears every bell: where it has no GPU, it says so instead of letting a job wait.
        Part("worker", worker_command("cpu,gpu"), shared),
    ]


def worker_command(queues: str) -> list[str]:
    """The command of a Celery worker that listens on `queues` (comma-separated)."""
    celery = [sys.executable, "-m", "celery", "--app", "workers.tasks:celery", "worker"]
    options = {"queues": queues, "concurrency": get_settings().concurrency, "loglevel": "INFO"}
    return [
        *celery,
        *(f"--{name}={value}" for name, value in options.items()),
        "--without-mingle",
        "--without-gossip",
    ]


def settings_table() -> Table:
    """Every setting: its variable, default, value and meaning; secrets are not shown."""
    table = Table("variable", "default", "now", "what it is")
    settings = get_settings()
    for name, field in Settings.model_fields.items():
        row = (_shown(field.default), _shown(getattr(settings, name)), field.description or "")
        table.add_row(f"RANKFOLD_{name.upper()}", *row)
    return table


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set)"
    text = "" if value is None else str(value)
    scheme, separator, rest = text.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if separator and "@" in rest else text


@contextmanager
def _broker_socket(settings: Settings) -> Iterator[Path]:
    path = socket_path(settings.broker_socket)
    path.unlink(missing_ok=True)  # of an instance that was killed
    yield path
    if path != settings.broker_socket:
        shutil.rmtree(path.parent, ignore_errors=True)


def _broker(settings: Settings, socket_file: Path) -> Part:
    folder = settings.data_dir.resolve() / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        command = server_command(socket_file, folder)
    except BrokerMissing as error:
        raise CannotStart(str(error)) from error
    return Part("broker", command, ready=partial(_listens, socket_file))


def _listens(socket_file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(socket_file)) == 0


def _answers(settings: Settings) -> bool:
    with contextlib.suppress(OSError), urlopen(f"{_address(settings)}/livez", timeout=1) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False


def _address(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{settings.port}"


def demand_sandbox(settings: Settings) -> None:
    """Raise `CannotStart` where the worker would not start: it would be tried again and again."""
    if settings.resolved_sandbox != "require":
        return
    looked = subprocess.run(SANDBOX, check=False, capture_output=True, text=True)
    if looked.returncode != 0:
        raise CannotStart(looked.stderr.strip().rpartition("\n")[2])


def _prepare_database(settings: Settings) -> str | None:
    """Migrate, and make the first key; its secret if it is new."""
    engine = make_engine(settings.resolved_database_url, pool_size=1)
    try:
        upgrade(settings.resolved_database_url)
        return service.bootstrap(engine, settings)
    except OperationalError as error:
        address = engine.url.render_as_string(hide_password=True)
        raise CannotStart(f"the database {address} does not answer: check RANKFOLD_DATABASE_URL") from error
    finally:
        engine.dispose()


def _greet(settings: Settings, secret: str | None) -> None:
    say(f"Rankfold is ready at {_address(settings)}")
    if secret is not None:
        say(f"API key, shown this once: {secret}")
        say(f"Dashboard: {_address(settings)}/login?key={secret}")
