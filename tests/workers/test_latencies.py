"""Times are kept by tenant, by machine and by what was timed; what cannot be a time is refused."""

import math

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from app.db.session import writing
from app.db.tables import ApiKey
from workers import latencies
from workers.latencies import Latencies

MINE, OTHERS = "mine", "others"


@pytest.fixture
def tenants(engine: Engine) -> Engine:
    """Two."""
    with writing(engine) as connection:
        for key in (MINE, OTHERS):
            connection.execute(sa.insert(ApiKey).values(id=key, name="tests", sha256=key))
    return engine


def test_what_is_remembered_is_known_to_that_tenant_on_that_machine_only(tenants: Engine) -> None:
    here, there = Latencies(tenants, MINE, "here"), Latencies(tenants, MINE, "there")
    here.remember("a", {"dense": 2.0, "svd 8": 1.0})
    here.remember("a", {"dense": 3.0})
    there.remember("b", {"dense": 1.0})
    assert here.known() == {"a": {"dense": 3.0}}
    assert Latencies(tenants, MINE, "elsewhere").known() == {}
    assert Latencies(tenants, OTHERS, "here").known() == {}


def test_beyond_the_most_the_oldest_are_forgotten(tenants: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "_MOST", 2)
    mine, others = Latencies(tenants, MINE, "here"), Latencies(tenants, OTHERS, "here")
    others.remember("a", {"dense": 1.0})
    for signature in "abcb":
        mine.remember(signature, {"dense": 1.0})
    assert mine.known().keys() == {"b", "c"}
    assert others.known().keys() == {"a"}


@pytest.mark.parametrize("ms", [{"dense": -1.0}, {"dense": math.nan}, {"dense": math.inf}])
def test_what_cannot_be_a_time_is_refused(tenants: Engine, ms: dict[str, float]) -> None:
    mine = Latencies(tenants, MINE, "here")
    with pytest.raises(ValueError, match="no times"):
        mine.remember("a", ms)
    with pytest.raises(ValueError, match="no times"):
        mine.remember("a", {f"svd {rank}": 1.0 for rank in range(1000)})
    assert mine.known() == {}


def test_the_machine_is_its_processor_and_runtime() -> None:
    assert "ONNX Runtime" in latencies.machine()
