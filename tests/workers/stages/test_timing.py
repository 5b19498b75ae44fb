"""A budget of time through a whole job: measured forms, promised and measured latency, and noise."""

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests.workers.engine.networks import seeded, vector_network
from tests.workers.stages.jobs import Arrays, Finished, run_job
from workers.messages import Timed
from workers.stages import timing


def _job(folder: Path) -> Finished:
    seeded()
    widths = (512, 2048), (2048, 4)
    module = nn.Sequential(*(step for pair in widths for step in (nn.Linear(*pair), nn.ReLU())))
    random = np.random.default_rng(0)
    rows: Arrays = {
        "x": random.standard_normal((60, 512)).astype(np.float32),
        "target": random.integers(0, 4, 60),
    }
    target = {"of": "latency", "keep": 0.7}
    return run_job(folder, vector_network(module, 512), rows, target=target, finetune={"epochs": 0})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_LAYER_SECONDS", 0.2)
    monkeypatch.setattr(timing, "_NETWORK_SECONDS", 0.2)
    monkeypatch.setattr(timing, "_STEADY", 10.0)
    monkeypatch.setattr(timing, "_NOISY", 10.0)  # other tests may run beside this one


def test_the_report_says_what_was_promised_and_every_timed_layers_time(tmp_path: Path) -> None:
    job = _job(tmp_path)
    assert any(isinstance(message, Timed) for message in job.messages)
    assert job.candidate.predicted_ms is not None
    times = [layer.latency_ms for layer in job.candidate.layers if layer.method != "keep"]
    assert times
    assert all(pair and pair[1] * 1.1 <= pair[0] for pair in times)


@pytest.mark.slow
def test_what_the_worker_knows_is_not_timed_again(tmp_path: Path) -> None:
    first = _job(tmp_path / "first")
    timed = [message for message in first.messages if isinstance(message, Timed)]
    again = tmp_path / "again"
    again.mkdir()
    (again / "latencies.json").write_text(json.dumps({each.signature: each.ms for each in timed}))
    job = _job(again)
    assert not [message for message in job.messages if isinstance(message, Timed)]
    assert job.candidate.predicted_ms is not None


@pytest.mark.slow
def test_where_times_scatter_the_budget_is_one_of_macs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_NOISY", -1.0)
    job = _job(tmp_path)
    assert ("timings_too_noisy", None) in job.notices
    assert job.candidate.predicted_ms is None
    assert job.candidate.macs <= 0.7 * job.report.original.macs
