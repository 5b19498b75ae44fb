"""A small service of the same contract, in this process, that misbehaves on demand."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "the-key"
JOB = "job_" + "1" * 32
WEIGHTS = b"compressed weights" * 1000

REPORT: dict[str, Any] = {
    "model": "mdl_" + "a" * 32,
    "spec": {"model": "mdl_" + "a" * 32},
    "environment": {
        "torch": "2.13.0", "onnxruntime": "1.32.0", "cpu": "a processor", "threads": 1, "seed": 0,
        "device": "cpu",
    },
    "original": {
        "parameters": 658922, "macs": 36412928, "bytes": {"pt2": 2782225},
        "latency": {"onnxruntime": {
            "batch": 1, "threads": 1, "p50_ms": 1.0, "p95_ms": 1.2, "iqr_ms": 0.1, "runs": 50}},
        "metric": {"name": "top1", "value": 0.913, "n": 2000, "ci95": [0.9, 0.925]},
    },
    "candidates": [{
        "keep": 0.5, "parameters": 300000, "macs": 18206464, "bytes": {"pt2": 1300000},
        "latency": {"onnxruntime": {
            "batch": 1, "threads": 1, "p50_ms": 0.6, "p95_ms": 0.8, "iqr_ms": 0.1, "runs": 50}},
        "metric": {"name": "top1", "value": 0.8, "n": 2000, "ci95": [0.79, 0.81]},
        "fidelity": {"relative_error": 0.1, "cosine": 0.99, "top1_agreement": 0.97, "n": 2000},
        "verdict": "trade_off", "reason": "Faster, and less accurate.",
        "layers": [{
            "name": "layers.3.conv2", "method": "tucker", "rank": [64, 64], "parameters": [147456, 60000],
            "macs": [7225344, 3000000], "weight_error": 0.2, "output_error": 0.1, "latency_ms": [0.2, 0.1]}],
    }],
    "seconds": {"inspect": 1.0},
}  # fmt: skip


PLAN: dict[str, Any] = {
    "model": "mdl_" + "a" * 32, "keep": 0.5, "parameters": 300000, "macs": 18206464, "predicted_ms": None,
    "layers": [
        {"name": "layers.3.conv2", "method": "tucker", "rank": [64, 48], "parameters": [147456, 60000],
         "macs": [7225344, 3000000], "latency_ms": None, "discarded_energy": 0.0625, "reason": None},
        {"name": "layers.0", "method": "keep", "rank": None, "parameters": [432, 432], "macs": [77760, 77760],
         "latency_ms": None, "discarded_energy": 0.0, "reason": "No cheaper form is [worth] it."}],
    "others": [{
        "keep": 0.25, "parameters": 150000, "macs": 9103232, "predicted_ms": None, "layers": []}],
}  # fmt: skip


def problem(code: str, detail: str, status: int, **more: Any) -> tuple[int, dict[str, Any]]:
    """A problem document with its status."""
    title = code.replace("_", " ").capitalize()
    return status, {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }


@dataclass
class Service:
    """What the service holds and what it does wrong; `states` are the answers to a polled job."""

    url: str = ""
    uploads: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    planned: list[dict[str, Any]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    weights: bytes = WEIGHTS
    rejection: dict[str, Any] | None = None
    refusals: int = 0  # answers of 503 that come before the true ones
    not_modified: int = 0
    cancelled: bool = False

    def receive(self, kind: str, name: str, content: bytes) -> tuple[int, Any]:
        """Store an upload."""
        number = f"{len(self.uploads):032x}"
        stored: dict[str, Any] = {
            "id": f"{'mdl' if kind == 'models' else 'dst'}_{number}",
            "name": name,
            "format": name.rsplit(".", 1)[-1],
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "status": "inspecting",
            "a_field_of_tomorrow": True,
        }
        self.uploads[stored["id"]] = stored
        return 202, dict(stored)

    def inspect(self, upload_id: str) -> tuple[int, Any]:
        """Ready, or rejected, at the second look."""
        stored = self.uploads.get(upload_id)
        if stored is None:
            return problem("unknown_upload", "There is no such upload.", 404)
        answer = dict(stored)
        stored["status"] = "rejected" if self.rejection else "ready"
        stored["problem"] = self.rejection
        return 200, answer

    def create(self, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        """One job per Idempotency-Key."""
        self.jobs.setdefault(key, body)
        return 202, {"id": JOB, "status": "queued"}

    def artifacts(self) -> tuple[int, Any]:
        """One artifact, announced with the digest of the true weights."""
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        href = f"/v1/jobs/{JOB}/artifacts/model.pt2"
        known = {"name": "model.pt2", "format": "pt2", "bytes": len(WEIGHTS), "sha256": digest}
        return 200, [{**known, "candidate": 0, "href": href}]


class Handler(BaseHTTPRequestHandler):
    """Routes requests to the server's `Service`."""

    protocol_version = "HTTP/1.1"
    service: Service

    def do_POST(self) -> None:
        """Uploads, jobs, plans, cancellation."""
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self._refused():
            return
        if parts.path in {"/v1/models", "/v1/datasets"}:
            name = parse_qs(parts.query)["filename"][0]
            self._answer(*self.service.receive(parts.path.rsplit("/", 1)[-1], name, content))
        elif parts.path == "/v1/jobs":
            self._answer(*self.service.create(self.headers["Idempotency-Key"], json.loads(content)))
        elif parts.path == "/v1/plans":
            self.service.planned.append(json.loads(content))
            self._answer(200, PLAN)
        else:
            self.service.cancelled = True
            self._answer(202, {})

    def do_GET(self) -> None:
        """Everything that is read."""
        if self._refused():
            return
        if self.path.endswith("/report"):
            self._answer(200, REPORT)
        elif self.path.endswith("/artifacts"):
            self._answer(*self.service.artifacts())
        elif self.path.endswith("/model.pt2"):
            self._bytes(200, self.service.weights, "application/octet-stream")
        elif self.path.startswith("/v1/jobs/"):
            self._job()
        elif self.path == "/v1/datasets/html":
            self._bytes(200, b"<html>another service</html>", "text/html")
        else:
            self._answer(*self.service.inspect(self.path.rsplit("/", 1)[-1]))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class names it so
        """Nothing."""

    def _job(self) -> None:
        states = self.service.states
        state = states[0]
        etag = f'"{len(states)}"'
        if self.headers["If-None-Match"] == etag:
            self.service.not_modified += 1
            states.pop(0)
            self._bytes(304, b"", "application/json")
        else:
            self._answer(200, {"id": JOB, **state}, ETag=etag)

    def _refused(self) -> bool:
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self._answer(*problem("wrong_key", "This key is not known.", 401, hint="Make one."))
            return True
        if self.service.refusals:
            self.service.refusals -= 1
            self._answer(*problem("unavailable", "The database is away.", 503))
            return True
        return False

    def _answer(self, status: int, body: Any, **headers: str) -> None:
        self._bytes(status, json.dumps(body).encode(), "application/json", **headers)

    def _bytes(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running() -> Iterator[Service]:
    """A service on a free port of the loopback interface."""
    service = Service()
    handler = type("BoundHandler", (Handler,), {"service": service})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
