"""What only a real process shows: bodies on the wire, clients that go away, memory."""

import hashlib
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from tests.app.server import Server, running_api
from tests.processes import wait_until

START = b"PK\x03\x04"
MEGABYTE = 1 << 20


def _request(path: str, secret: str, length: int) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {secret}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _answer(connection: socket.socket) -> tuple[int, str | None, bytes]:
    """The whole answer, in however many packets it comes: status, content type, body."""
    response = HTTPResponse(connection, method="POST")
    response.begin()
    return response.status, response.getheader("content-type"), response.read()


def _body(megabytes: int) -> Iterator[bytes]:
    yield START
    for _ in range(megabytes):
        yield bytes(MEGABYTE)


@pytest.mark.parametrize(
    ("path", "secret", "status"),
    [
        ("/v1/models?filename=m.pt2", "wrong", 401),
        ("/v1/models?filename=m.onnx", "rk_of_a_test_server", 415),
        ("/v1/jobs", "rk_of_a_test_server", 413),
    ],
)
def test_the_refusal_comes_while_the_body_is_still_on_its_way(
    server: Server, path: str, secret: str, status: int
) -> None:
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(_request(path, secret, 1 << 30) + START + bytes(100))
        answered, kind, _ = _answer(connection)
    assert answered == status
    assert kind == "application/problem+json"


def test_what_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(_request("/v1/models?filename=m.pt2", server.secret, 5 << 30))
        status, _, body = _answer(connection)
    assert status == 413
    assert b"upload_too_large" in body


def test_a_client_that_goes_away_leaves_nothing(server: Server) -> None:
    before = server.files()
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(_request("/v1/models?filename=m.pt2", server.secret, 1 << 30) + START)
        for _ in range(16):
            connection.sendall(bytes(MEGABYTE))
        wait_until(lambda: len(server.files()) > len(before))
    wait_until(lambda: server.files() == before)
    models = httpx.get(f"{server.url}/v1/models", headers=server.headers).json()["items"]
    assert models == []


def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path: Path) -> None:
    with running_api(tmp_path) as server, socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(_request("/v1/models?filename=m.pt2", server.secret, 1 << 30) + START)
        wait_until(lambda: len(server.files()) == 1)
        server.process.kill()
        server.process.wait()
        assert len(server.files()) == 1
    with running_api(tmp_path) as server:
        assert server.files() == []


def test_the_idle_process_is_small_and_has_no_torch(server: Server) -> None:
    httpx.get(f"{server.url}/openapi.json", headers=server.headers)
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert server.peak_memory() < 150 * MEGABYTE


def test_an_upload_of_64_megabytes_does_not_show_in_memory(tmp_path: Path) -> None:
    with running_api(tmp_path) as server:
        httpx.get(f"{server.url}/v1/models", headers=server.headers)
        before = server.peak_memory()
        url = f"{server.url}/v1/models?filename=m.pt2"
        response = httpx.post(url, headers=server.headers, content=_body(64), timeout=60)
        assert response.json()["bytes"] == 64 * MEGABYTE + 4
        assert server.peak_memory() - before < 32 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("form", [False, True])
def test_two_gigabytes_pass_through_flat_memory(tmp_path: Path, form: bool) -> None:
    digest = hashlib.sha256()
    for chunk in _body(2048):
        digest.update(chunk)
    with running_api(tmp_path) as server:
        head, tail = b"", b""
        headers, url = dict(server.headers), f"{server.url}/v1/models?filename=m.pt2"
        if form:
            headers["Content-Type"] = "multipart/form-data; boundary=edge"
            disposition = b'Content-Disposition: form-data; name="file"; filename="m.pt2"'
            head, tail = b"--edge\r\n" + disposition + b"\r\n\r\n", b"\r\n--edge--\r\n"
        body = (part for parts in ([head], _body(2048), [tail]) for part in parts if part)
        response = httpx.post(url, headers=headers, content=body, timeout=600)
        assert response.status_code == 202, response.text
        assert response.json()["sha256"] == digest.hexdigest()
        assert server.peak_memory() < 200 * MEGABYTE
