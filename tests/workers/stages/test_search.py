"""Budgets found instead of given: by the fall of a metric, and by what outputs still agree on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.workers.engine.networks import seeded, vector_network
from tests.workers.stages.jobs import Arrays, Finished, run_job
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network


def _network() -> Network:
    """Its classes depend on few directions of the hidden layers, and on more where it is harder."""
    seeded()
    module = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    return vector_network(module, 16)


def _rows(network: Network, count: int, *, labelled: bool = True) -> Arrays:
    x = np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)
    target = network(torch.from_numpy(x)).argmax(-1).numpy()
    return {"x": x, "target": target} if labelled else {"x": x}


def _job(folder: Path, *, labelled: bool = True, rows: int = 400, **spec: Any) -> Finished:
    network = _network()
    wanted = {"task": "classification" if labelled else "none", "finetune": {"epochs": 0}, **spec}
    train, test = (_rows(network, count, labelled=labelled) for count in (rows, 100))
    return run_job(folder, network, train, test, **wanted)


def _share(job: Finished) -> float:
    return job.candidate.parameters / job.report.original.parameters


def test_a_larger_drop_finds_a_cheaper_network(tmp_path: Path) -> None:
    strict, loose = (
        _job(tmp_path / str(drop), target={"of": "parameters", "max_drop": drop}) for drop in (0.05, 0.4)
    )
    assert _share(loose) < _share(strict) < 1.0
    for job in (strict, loose):
        assert _share(job) <= job.candidate.keep
        assert job.is_finite()


@pytest.mark.slow
def test_no_drop_at_all_may_leave_everything_dense(tmp_path: Path) -> None:
    job = _job(tmp_path, target={"max_drop": 0.0})
    metric, original = job.candidate.metric, job.report.original.metric
    assert metric is not None
    assert original is not None
    assert _share(job) > 0.5 or metric.value == original.value


def test_a_drop_needs_labelled_rows_besides_the_test_rows(tmp_path: Path) -> None:
    network = _network()
    with pytest.raises(EngineError) as caught:
        run_job(
            tmp_path,
            network,
            test=_rows(network, 100),
            task="classification",
            target={"max_drop": 0.1},
        )
    assert (caught.value.code, caught.value.field) == ("too_few_rows", "data.train")


def test_without_labels_layers_stay_dense_until_the_outputs_agree(tmp_path: Path) -> None:
    job = _job(tmp_path, labelled=False, target={"of": "parameters", "keep": 0.2})
    assert ("budget_missed", None) in job.notices
    assert job.candidate.keep == 0.2
    assert _share(job) > 0.2
    agreement = job.candidate.fidelity.top1_agreement
    assert agreement is not None
    assert agreement > 0.7  # demanded of other rows: 0.8


@pytest.mark.slow
def test_the_demand_may_be_lowered_or_raised(tmp_path: Path) -> None:
    target = {"of": "parameters", "keep": 0.2}
    free = _job(tmp_path / "free", labelled=False, target=target | {"min_agreement": 0.0})
    assert _share(free) <= 0.2
    assert not any(code == "budget_missed" for code, _ in free.notices)
    bound = _job(tmp_path / "bound", target=target | {"min_agreement": 0.9})
    assert _share(bound) > 0.2
    reasons = [layer.reason or "" for layer in bound.candidate.layers if layer.method == "keep"]
    assert _share(bound) < 1.0 or any("same classes" in reason for reason in reasons)
