"""Times of stages, on networks that take none to speak of."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import networks, stages
from tests.workers.engine.networks import write_example
from workers.messages import Order


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 56, 56), nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 8))


def test_every_stage_of_a_whole_job_is_timed_on_the_threads_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders: list[tuple[Order, int]] = []
    real = stages.run_job
    monkeypatch.setitem(networks.LAYOUTS, "tiny", tiny)
    monkeypatch.setattr(
        stages, "run_job", lambda *job: orders.append((job[0], torch.get_num_threads())) or real(*job)
    )
    before = torch.get_num_threads()
    seconds = stages.network_seconds("tiny", before + 1, 20)
    [(order, threads)] = orders
    assert order.threads == threads == before + 1
    assert torch.get_num_threads() == before
    assert all(seconds[stage] > 0 for stage in stages._STAGES)
    *parts, whole = (float(shown.removesuffix(" s")) for shown in stages._shown(seconds))
    assert whole == pytest.approx(sum(parts), abs=0.5)


def test_budgets_take_turns_and_are_compared_by_medians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([1.0, 2.0, 9.0, 3.0, 2.0, 30.0])
    asked: list[int] = []
    monkeypatch.setattr(
        stages, "decomposition_seconds", lambda _, keeps: asked.append(len(keeps)) or next(times)
    )
    one, five = stages._keeps(tmp_path / "net")
    assert asked == [1, 5] * 3
    assert one == ["net", "0.5", "2.0 s", "1.00"]
    assert five == ["net", "0.7, 0.5, 0.35, 0.25, 0.125", "3.0 s", "1.50"]


def test_a_decomposition_is_timed_in_a_job_that_ends_there(tmp_path: Path) -> None:
    write_example(tmp_path, {"train": 40, "test": 20})
    assert 0.0 < stages.decomposition_seconds(tmp_path, (0.5, 0.35)) < 60.0
