"""A supervised service whose API does nothing but accept jobs: `python -m tests.app.serve_parts`.

Broker, supervisor, janitor and workers are the real ones; the workers run the fake pipeline.
"""

import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app.broker import server_command
from app.db.session import make_engine, writing
from app.queue.doorbell import make_celery
from app.queue.janitor import Janitor
from app.queue.lifecycle import enqueue
from app.settings import get_settings
from app.supervisor import Part, Supervisor, say
from tests.app.queue.jobs import KEY


def serve() -> None:
    """Broker, API and worker under a supervisor."""
    settings = get_settings()
    shared = {"RANKFOLD_BROKER_URL": settings.resolved_broker_url}
    worker = [sys.executable, "-m", "celery", "--app", "tests.workers.fake_worker:celery", "worker"]
    folder = settings.data_dir.resolve()
    parts = [
        Part("broker", server_command(settings.broker_socket, folder), ready=settings.broker_socket.exists),
        Part("api", [sys.executable, "-m", "tests.app.serve_parts", "api"], shared),
        Part("worker", [*worker, "--queues=cpu", "--concurrency=2", "--without-mingle"], shared),
    ]
    Supervisor(parts, Path(folder)).run(when_ready=lambda: say("ready"))


def api() -> None:
    """`POST /jobs/{model}` accepts a job."""
    settings = get_settings()
    engine = make_engine(settings.resolved_database_url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        celery = make_celery(settings.resolved_broker_url)
        with Janitor(engine, celery, lease_seconds=settings.lease_seconds, max_attempts=5):
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/jobs/{model}", status_code=202)
    def post(model: str) -> str:
        job_id = f"job_{uuid.uuid4().hex}"
        spec = {"model": model, "seed": 0}
        with writing(engine) as connection:
            enqueue(connection, job_id=job_id, key_id=KEY, kind="compress", spec=spec, queue="cpu")
        return job_id

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["RANKFOLD_PORT"]), log_level="warning")


if __name__ == "__main__":
    (api if sys.argv[1:] == ["api"] else serve)()
