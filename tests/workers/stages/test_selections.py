"""Every way to choose ranks through a whole job, each by what it promises; and layers that are pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from app.contract.plan import Plan
from tests.workers.engine.networks import Attention, seeded, sequence_network, vector_network
from tests.workers.stages.jobs import Arrays, Finished, run_job
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.messages import Advanced
from workers.stages import decompose
from workers.stages.carry_out import Decomposed, carry_out
from workers.stages.context import Context


def _network() -> Network:
    seeded()
    module = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    return vector_network(module, 16)


def _rows(count: int) -> Arrays:
    random = np.random.default_rng(count)
    x = random.standard_normal((count, 16)).astype(np.float32)
    return {"x": x, "target": random.integers(0, 4, count)}


def _job(folder: Path, rows: int = 200, **spec: Any) -> Finished:
    wanted = {"task": "classification", "finetune": {"epochs": 0}, **spec}
    return run_job(folder, _network(), _rows(rows), _rows(50), **wanted)


def _fractions(job: Finished) -> set[float]:
    return {
        layer.parameters[1] / layer.parameters[0] for layer in job.candidate.layers if layer.method != "keep"
    }


def test_cross_validation_takes_the_least_fraction_within_an_error_of_the_best(tmp_path: Path) -> None:
    ranks = {"selection": "cross_validation", "folds": 3, "grid": [0.8, 0.2, 0.5]}
    job = _job(tmp_path, ranks=ranks, target={"of": "parameters"})
    found = job.report.cross_validation
    assert [each.fraction for each in found] == [0.2, 0.5, 0.8]
    assert all(len(each.folds) == 3 and each.metric == "top1" for each in found)
    [chosen] = [each for each in found if each.chosen]
    best = max(found, key=lambda each: sum(each.folds))
    error = np.std(best.folds, ddof=1) / np.sqrt(3)
    good = [each.fraction for each in found if np.mean(each.folds) >= np.mean(best.folds) - error]
    assert chosen.fraction == min(good)
    assert max(_fractions(job)) <= chosen.fraction
    progress = [message.fraction for message in job.messages if isinstance(message, Advanced)]
    assert progress == sorted(progress)


@pytest.mark.slow
def test_cross_validation_without_targets_goes_by_the_outputs(tmp_path: Path) -> None:
    job = _job(tmp_path, task="none", ranks={"selection": "cross_validation", "folds": 2, "grid": [0.3, 0.6]})
    assert {each.metric for each in job.report.cross_validation} == {"relative_error"}


def test_more_folds_than_calibration_rows_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as raised:
        _job(tmp_path, rows=12, ranks={"selection": "cross_validation", "folds": 20})
    assert (raised.value.code, raised.value.field) == ("too_few_rows", "ranks.folds")
    assert raised.value.hint


@pytest.mark.slow
def test_vbmf_of_noise_keeps_next_to_nothing_whatever_the_budget(tmp_path: Path) -> None:
    job = _job(tmp_path, ranks={"selection": "vbmf"}, target={"keep": 0.9})
    ranks = [max(layer.rank) for layer in job.candidate.layers if layer.rank]
    assert ranks
    assert max(ranks) <= 8
    assert job.candidate.parameters < 0.5 * job.report.original.parameters


@pytest.mark.slow
def test_explicit_ranks_are_taken_and_every_other_layer_stays_dense(tmp_path: Path) -> None:
    job = _job(tmp_path, ranks={"selection": "explicit"}, layers=[{"match": "2", "rank": 12}])
    assert {layer.name: layer.rank for layer in job.candidate.layers} == {"0": None, "2": [12], "4": None}


def test_queries_and_keys_are_one_layer_where_a_job_asks_for_their_product(tmp_path: Path) -> None:
    seeded()
    network = sequence_network(Attention(24, 3), 24)
    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((40, 6, 24)).astype(np.float32)}
    job = run_job(
        tmp_path,
        network,
        rows,
        methods=["joint_svd"],
        target={"of": "parameters", "keep": 0.7},
        finetune={"epochs": 0},
    )
    pairs = {layer.name: layer for layer in job.candidate.layers if layer.method == "joint_svd"}
    assert "q+k" in pairs
    assert all(layer.rank and layer.output_error is not None for layer in pairs.values())
    assert job.candidate.parameters <= 0.7 * job.report.original.parameters
    assert job.is_finite()


def test_of_plans_that_weight_depth_the_nearest_to_the_original_is_carried_out(tmp_path: Path) -> None:
    seeded()
    hidden = [layer for _ in range(5) for layer in (nn.Linear(64, 64), nn.ReLU())]
    network = vector_network(nn.Sequential(nn.Linear(16, 64), *hidden, nn.Linear(64, 4)), 16)
    spec: dict[str, Any] = {
        "calibration": {"weighting": "inputs"},
        "target": {"of": "parameters", "keep": 0.5},
    }
    job = run_job(tmp_path, network, _rows(200), task="classification", finetune={"epochs": 0}, **spec)
    tried = {trial.depth_weighting: trial.divergence for trial in job.candidate.trials}
    assert 0.0 in tried
    assert len(tried) > 1
    assert job.candidate.depth_weighting == min(tried, key=tried.__getitem__)
    if tried.get(2.0, tried[0.0]) < tried[0.0]:
        assert -2.0 not in tried


def test_the_only_plan_is_carried_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried_out: list[float] = []

    def counted(context: Context, plan: Plan, *arguments: Any) -> Decomposed:
        carried_out.append(plan.keep)
        return carry_out(context, plan, *arguments)

    monkeypatch.setattr(decompose, "carry_out", counted)
    _job(tmp_path, calibration={"weighting": "inputs"}, ranks={"selection": "fraction"})
    assert len(carried_out) == 1


def test_plans_blind_to_the_data_weight_no_depth(tmp_path: Path) -> None:
    job = _job(tmp_path, calibration={"weighting": "inputs"}, ranks={"selection": "fraction"})
    assert not job.candidate.trials
    assert job.candidate.depth_weighting == 0.0
