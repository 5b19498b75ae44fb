"""Times of stages, on networks that take none to speak of."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from app.contract.status import Stage
from benchmarks import networks, stages
from tests.benchmarks.small import write_case
from workers.messages import Order, StageStarted


class Tiny(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 56, 56), nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 8))


def test_a_job_is_on_the_threads_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Order] = []

    def run(order: Order, _workspace: Path) -> Any:
        orders.append(order)
        assert torch.get_num_threads() == order.threads
        return SimpleNamespace(seconds={"plan": 1.5})

    monkeypatch.setitem(networks.LAYOUTS, "tiny", Tiny)
    monkeypatch.setattr(stages, "run_job", run)
    before = torch.get_num_threads()
    assert stages.network_seconds("tiny", before + 1, 20) == {"plan": 1.5}
    assert [order.threads for order in orders] == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_every_stage_of_a_whole_job_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.LAYOUTS, "tiny", Tiny)
    seconds = stages.network_seconds("tiny", 1, 20)
    *parts, whole = (float(shown.removesuffix(" s")) for shown in stages._shown(seconds))
    assert len(parts) == 5
    assert whole == pytest.approx(sum(parts), abs=0.5)


def test_budgets_take_turns_and_are_compared_by_medians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(1.0, 0.5), (2.0, 1.5), (9.0, 0.5), (3.0, 1.5), (2.0, 0.5), (30.0, 1.5)])
    asked: list[int] = []

    def taken(_case: Path, keeps: Sequence[float]) -> tuple[float, float]:
        asked.append(len(keeps))
        return next(times)

    monkeypatch.setattr(stages, "decomposition_seconds", taken)
    one, five = stages._keeps(tmp_path / "net")
    assert asked == [1, 5] * 3
    assert one == ["net", "0.5", "2.0 s", "1.00", "0.5 s", "1.00"]
    assert five == ["net", "0.7, 0.5, 0.35, 0.25, 0.125", "3.0 s", "1.50", "1.5 s", "1.00"]


def test_a_decomposition_is_timed_in_a_job_that_ends_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Stage] = []
    monkeypatch.setattr(
        stages, "ignore", lambda said: started.append(said.stage) if isinstance(said, StageStarted) else None
    )
    whole, files = stages.decomposition_seconds(write_case(tmp_path, 40), (0.5, 0.35))
    assert 0.0 < files < whole
    assert started == [Stage.INSPECT, Stage.PLAN, Stage.DECOMPOSE]
