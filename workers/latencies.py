"""What layers were timed to take on a kind of machine, for all jobs of a tenant that come to it."""

import math
from dataclasses import dataclass
from importlib.metadata import version

import sqlalchemy as sa
from sqlalchemy import Engine

from app.db.session import reading, writing
from app.db.tables import Latency
from workers.engine.measure.processor import cpu_name

_MOST = 2000  # signatures that are kept: the newest
_MOST_FORMS = 500


def machine() -> str:
    """The processor and the runtime: where both are alike, so are the times."""
    return f"{cpu_name()}, ONNX Runtime {version('onnxruntime')}"[:200]


@dataclass(frozen=True)
class Latencies:
    """Those of one tenant on one kind of machine. No other's: they come from processes that handled untrusted
    bytes, and a wrong time would choose the forms of whoever believed it."""

    engine: Engine
    key_id: str
    machine: str

    def known(self) -> dict[str, dict[str, float]]:
        """Milliseconds by signature, then by form."""
        with reading(self.engine) as connection:
            rows = connection.execute(sa.select(Latency.signature, Latency.ms).where(self._mine()))
            return {row.signature: row.ms for row in rows}

    def remember(self, signature: str, ms: dict[str, float]) -> None:
        """Store times in the place of what there was, and forget the oldest beyond what is kept; raises
        `ValueError` for what cannot be a time."""
        if len(ms) > _MOST_FORMS or not all(0.0 <= each < math.inf for each in ms.values()):
            raise ValueError("these are no times")
        row = {"key_id": self.key_id, "machine": self.machine, "signature": signature, "ms": ms}
        newest = sa.select(Latency.signature).where(self._mine()).order_by(Latency.measured_at.desc())
        with writing(self.engine) as connection:
            connection.execute(sa.delete(Latency).where(self._mine(), Latency.signature == signature))
            connection.execute(sa.insert(Latency).values(row))
            older = Latency.signature.in_(newest.offset(_MOST))
            connection.execute(sa.delete(Latency).where(self._mine(), older))

    def _mine(self) -> sa.ColumnElement[bool]:
        return (Latency.key_id == self.key_id) & (Latency.machine == self.machine)
