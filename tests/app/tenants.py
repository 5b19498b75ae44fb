"""Tenants of a running API, for tests: each has a key of its own and sees nothing of the others."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.contract.problem import Problem
from app.contract.spec import JobSpec
from app.contract.summary import ModelSummary
from app.db.session import reading, writing
from app.db.tables import Document, Job
from app.keys import service as keys
from app.queue import lifecycle
from app.queue.lifecycle import Claimed, Ending

ZIP = b"PK\x03\x04" + bytes(60)

_FOUND: Document = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 1, 28, 28]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
    "parameters": 1000,
    "macs": 5000,
    "layers": [
        {
            "name": "conv1", "kind": "conv2d", "shape": [64, 32, 3, 3], "parameters": 100, "macs": 900,
            "methods": ["tucker"], "max_rank": {"tucker": [64, 32]},
        },
        {
            "name": "fc", "kind": "linear", "shape": [10, 64], "parameters": 100, "macs": 900,
            "methods": ["svd"], "max_rank": {"svd": [10]},
        },
        {"name": "norm", "kind": "batch_norm", "shape": [64], "parameters": 10, "macs": 10},
    ],
}  # fmt: skip
MODEL_SUMMARY: Document = ModelSummary.model_validate(_FOUND).model_dump(mode="json")
IMAGES: Document = {"name": "x", "dtype": "float32", "shape": [40, 1, 28, 28]}
LABELS: Document = {"name": "target", "dtype": "int64", "shape": [40], "minimum": 0, "maximum": 9}


@dataclass(frozen=True)
class Tenant:
    """A client that sends its key, and the database behind the API."""

    client: TestClient
    engine: Engine
    key_id: str
    secret: str

    def upload(self, noun: str = "models", name: str = "model.pt2", content: bytes = ZIP) -> str:
        """Upload a file; its id."""
        response = self.client.post(f"/v1/{noun}", params={"filename": name}, content=content)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def model(self, summary: Document = MODEL_SUMMARY, name: str = "model.pt2") -> str:
        """A model that a worker found to be like `summary`."""
        upload_id = self.upload(name=name)
        self._inspect(upload_id, Ending.succeeded(summary))
        return upload_id

    def rejected_model(self) -> str:
        """A model that a worker has rejected."""
        upload_id = self.upload()
        problem = Problem.of("unknown_operator", "The operator aten.evil is not known.", layer="evil")
        self._inspect(upload_id, Ending.failed(problem))
        return upload_id

    def dataset(self, *arrays: Document, rows: int = 40) -> str:
        """A data set that a worker found to hold `arrays`."""
        upload_id = self.upload("datasets", "data.npz")
        self._inspect(upload_id, Ending.succeeded({"rows": rows, "arrays": list(arrays)}))
        return upload_id

    def job(self, **body: Any) -> str:
        """A queued job; its id."""
        spec = {"model": self.model()} | body
        JobSpec.model_validate(spec)
        response = self.client.post("/v1/jobs", json=spec)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def claim(self, job_id: str) -> Claimed:
        """Take a job up, like a worker."""
        claimed = lifecycle.claim(self.engine, job_id, "a test", 3600.0)
        assert claimed is not None
        return claimed

    def finish(self, job_id: str, ending: Ending) -> None:
        """Take a job up and end it, like a worker."""
        assert lifecycle.finish(self.engine, self.claim(job_id).lease, ending)

    def _inspect(self, upload_id: str, ending: Ending) -> None:
        with reading(self.engine) as connection:
            query = sa.select(Job.id).where(Job.upload_id == upload_id)
            job_id = connection.execute(query).scalar_one()
        self.finish(job_id, ending)


def new_tenant(app: FastAPI, client: TestClient, name: str) -> Tenant:
    """Somebody with a fresh key, on a client of their own."""
    engine: Engine = app.state.engine
    with writing(engine) as connection:
        key_id, secret = keys.create(connection, name)
    own = TestClient(app, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False)
    own.portal = client.portal  # one event loop for all, that of the lifespan
    return Tenant(own, engine, key_id, secret)
