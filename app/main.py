"""The API process. Importing this touches nothing: no folder, no database, no torch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from anyio import to_thread
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator

from app import errors, health, logs
from app.blobs import open_store
from app.dashboard import endpoints as dashboard
from app.datasets import endpoints as datasets
from app.db.session import make_engine
from app.jobs import endpoints as jobs
from app.keys import service as keys
from app.keys.authentication import Authentication
from app.methods import endpoints as methods
from app.models import endpoints as models
from app.plans import endpoints as plans
from app.queue.doorbell import make_celery
from app.queue.janitor import Janitor
from app.settings import Settings, get_settings
from app.uploads.spool import sweep
from app.web.middleware import AccessLog, BodyLimit, LastResort, SecurityHeaders

_DESCRIPTION = """Upload a trained network, say how much of its cost may remain, and download a smaller one
with a report of measured numbers.

Every error is a problem document (RFC 9457) with a stable `code`. Send `Authorization: Bearer KEY`."""
_CONNECTIONS = 15  # as many requests at once as the pool has connections; the others wait their turn
_LARGEST_BODY = 1 << 20  # bytes, of every request that is no upload
_UPLOADS = frozenset({"/v1/models", "/v1/datasets"})
_PUBLIC = frozenset({"/livez", "/readyz"})

_log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application; it opens database and storage when it starts serving."""
    app = FastAPIOffline(
        title="Rankfold",
        version=version("rankfold"),
        description=_DESCRIPTION,
        lifespan=_lifespan,
        redoc_url=None,
        static_url="/docs/static",
    )
    app.state.settings = settings
    errors.install(app)
    for slice_ in (models, datasets, plans, jobs, methods, health):
        app.include_router(slice_.router)
    dashboard.install(app)
    registry = CollectorRegistry()
    metrics = Instrumentator(registry=registry, excluded_handlers=["/livez", "/readyz", "/metrics"])
    metrics.instrument(app).expose(app, include_in_schema=False)
    _add_middleware(app)
    return app


def is_public(path: str) -> bool:
    """Whether a path is for everybody: the probes, and the dashboard, which sends strangers to its login."""
    return path in _PUBLIC or dashboard.owns(path)


def _add_middleware(app: FastAPI) -> None:
    """From the inside out: the last one added sees the request first."""
    app.add_middleware(BodyLimit, limit=_LARGEST_BODY, streaming=_UPLOADS)
    app.add_middleware(Authentication, public=is_public)
    app.add_middleware(LastResort)
    app.add_middleware(AccessLog)
    app.add_middleware(SecurityHeaders, inline_scripts=frozenset({"/docs"}))
    app.add_middleware(CorrelationIdMiddleware)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    logs.configure()
    to_thread.current_default_thread_limiter().total_tokens = _CONNECTIONS
    engine = make_engine(settings.resolved_database_url)
    app.state.engine = engine
    app.state.blobs = open_store(settings.resolved_blob_url)
    app.state.celery = make_celery(settings.resolved_broker_url)
    if removed := sweep(settings.spool_dir):
        _log.info("removed_unfinished_uploads", files=removed)
    if keys.bootstrap(engine, settings) is not None:
        _log.info("made_the_first_key")
    try:
        with Janitor(
            engine,
            app.state.celery,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
        ):
            yield
    finally:
        engine.dispose()


app = create_app(get_settings())
