"""What layers were timed to take on a kind of machine, for all jobs that come to it."""

import math
from importlib.metadata import version

import sqlalchemy as sa
from sqlalchemy import Engine

from app.db.session import reading, writing
from app.db.tables import Latency
from workers.engine.measure.processor import cpu_name

_MOST = 2000  # signatures that a job is told of: the newest
_MOST_FORMS = 500


def machine() -> str:
    """The processor and the runtime: where both are alike, so are the times."""
    return f"{cpu_name()}, ONNX Runtime {version('onnxruntime')}"[:200]


def known(engine: Engine, where: str) -> dict[str, dict[str, float]]:
    """Milliseconds by signature, then by form."""
    query = sa.select(Latency.signature, Latency.ms).where(Latency.machine == where)
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(Latency.measured_at.desc()).limit(_MOST))
        return {row.signature: row.ms for row in rows}


def remember(engine: Engine, where: str, signature: str, ms: dict[str, float]) -> None:
    """Store times in the place of what there was. They come from a process that handled untrusted bytes:
    raises `ValueError` for what cannot be a time."""
    if len(ms) > _MOST_FORMS or not all(0.0 <= each < math.inf for each in ms.values()):
        raise ValueError("these are no times")
    mine = (Latency.machine == where) & (Latency.signature == signature)
    with writing(engine) as connection:
        connection.execute(sa.delete(Latency).where(mine))
        connection.execute(sa.insert(Latency).values(machine=where, signature=signature, ms=ms))
