"""Whether the process lives, and whether it can serve."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar

from celery import Celery
from fastapi import APIRouter, Request, Response
from sqlalchemy import Engine, text

from app.blobs import BlobMissing, BlobStore
from app.contract.base import Contract
from app.db.session import reading

_PATIENCE_SECONDS = 1.5

Part = TypeVar("Part")
State = Literal["ok", "degraded", "down"]
router = APIRouter(tags=["health"])


class Liveness(Contract):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Contract):
    """The parts. Without the broker jobs are still accepted, and start once it is back: `degraded`."""

    status: State
    database: State
    storage: State
    broker: State


@router.get("/livez", operation_id="livez", summary="Whether the process lives")
async def livez() -> Liveness:
    """No input or output: what is asked often must not depend on anything."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Whether requests can be served",
    responses={503: {"model": Readiness, "description": "the database or the storage does not answer"}},
)
async def readyz(request: Request, response: Response) -> Readiness:
    """503 without database or storage; 200 without the broker, which jobs can wait for."""
    state = request.app.state
    database, storage, broker = await asyncio.gather(
        _state(_ask_database, state.engine),
        _state(_ask_storage, state.blobs),
        _state(_ask_broker, state.celery),
    )
    status: State = "down" if "down" in (database, storage) else "ok" if broker == "ok" else "degraded"
    response.status_code = 503 if status == "down" else 200
    return Readiness(status=status, database=database, storage=storage, broker=broker)


async def _state(ask: Callable[[Part], None], part: Part) -> State:
    """Whether the part answers in time, whatever keeps it from that."""
    try:
        await asyncio.wait_for(asyncio.to_thread(ask, part), _PATIENCE_SECONDS)
    except Exception:
        return "down"
    return "ok"


def _ask_database(engine: Engine) -> None:
    with reading(engine) as connection:
        connection.execute(text("SELECT 1"))


def _ask_storage(blobs: BlobStore) -> None:
    with suppress(BlobMissing):
        blobs.size("uploads/none")


def _ask_broker(celery: Celery) -> None:
    with celery.connection_for_write() as connection:
        connection.channel().client.ping()
