"""Times are kept by machine and by what was timed; what cannot be a time is refused."""

import math

import pytest
from sqlalchemy import Engine

from workers import latencies


def test_what_is_remembered_is_known_on_that_machine_only(engine: Engine) -> None:
    latencies.remember(engine, "here", "a", {"dense": 2.0, "svd 8": 1.0})
    latencies.remember(engine, "here", "a", {"dense": 3.0})
    latencies.remember(engine, "there", "b", {"dense": 1.0})
    assert latencies.known(engine, "here") == {"a": {"dense": 3.0}}
    assert latencies.known(engine, "elsewhere") == {}


@pytest.mark.parametrize("ms", [{"dense": -1.0}, {"dense": math.nan}, {"dense": math.inf}])
def test_what_cannot_be_a_time_is_refused(engine: Engine, ms: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no times"):
        latencies.remember(engine, "here", "a", ms)
    with pytest.raises(ValueError, match="no times"):
        latencies.remember(engine, "here", "a", {f"svd {rank}": 1.0 for rank in range(1000)})
    assert latencies.known(engine, "here") == {}


def test_the_machine_is_its_processor_and_runtime() -> None:
    assert "ONNX Runtime" in latencies.machine()
