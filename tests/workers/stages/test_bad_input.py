"""Weights and data that are not as they should be: no crash, no NaN in an artifact, a clear answer."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.workers.engine.networks import BATCH, seeded, vector_network
from tests.workers.stages.jobs import Finished, run_job
from workers.engine.errors import EngineError
from workers.engine.graph.network import Input, Network, trace


class Odd(nn.Module):
    """A zero weight, a singular one, one that two kinds of layer share, and an input that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.zero, self.singular = nn.Linear(32, 32), nn.Linear(32, 32, bias=False)
        self.wide, self.narrow, self.thin = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 1)
        with torch.no_grad():
            self.zero.weight.zero_()
            self.singular.weight.copy_(torch.outer(torch.randn(32), torch.randn(32)) / 32)

    def forward(self, ids: Tensor, unused: Tensor) -> Tensor:
        x = self.table(ids)
        x = x + self.zero(x) + self.singular(x)
        x = x + self.narrow(self.wide(x).relu())
        return F.linear(x * self.thin(x).sigmoid(), self.table.weight)


def odd_network() -> Network:
    seeded()
    inputs = (Input("ids", torch.int64, (BATCH, 6)), Input("unused", torch.float32, (BATCH, 3)))
    return trace(Odd().eval(), inputs)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """With ten rows to train on, of which one is left to calibrate."""
    random = np.random.default_rng(0)
    unused = random.standard_normal((10, 3)).astype(np.float32)
    return run_job(
        tmp_path_factory.mktemp("odd"),
        odd_network(),
        {"ids": random.integers(0, 50, (10, 6)), "unused": unused},
        target={"of": "parameters", "keep": 0.7},
        outputs=["pt2", "onnx"],
    )


def test_odd_weights_and_one_row_to_calibrate_give_a_finite_artifact_within_the_budget(odd: Finished) -> None:
    assert odd.report.splits["calibration"] == 1
    assert odd.is_finite()
    assert odd.candidate.parameters <= 0.7 * odd.report.original.parameters
    assert odd.candidate.fidelity.relative_error < 1
    assert odd.onnx.exists()


def test_every_layer_is_decomposed_with_its_error_or_dense_with_its_reason(odd: Finished) -> None:
    layers = {layer.name: layer for layer in odd.candidate.layers}
    assert {"table", "zero", "singular", "wide", "narrow", "thin"} <= set(layers)
    for layer in layers.values():
        assert math.isfinite(layer.weight_error)
        assert (layer.method == "keep") == bool(layer.reason)
        assert (layer.method == "keep") == (("kept_dense", layer.name) in odd.notices)


@pytest.mark.parametrize("name", ["zero", "singular"])
def test_zero_and_singular_weights_lose_nothing_at_a_small_rank(odd: Finished, name: str) -> None:
    [layer] = [layer for layer in odd.candidate.layers if layer.name == name]
    assert layer.method != "keep"
    assert layer.rank is not None
    assert max(layer.rank) <= 8
    assert layer.weight_error == pytest.approx(0, abs=1e-5)


def test_an_unused_input_is_said_and_stays_an_input(odd: Finished) -> None:
    assert ("unused_input", None) in odd.notices
    outputs = odd.outputs(np.zeros((2, 6), np.int64), np.zeros((2, 3), np.float32))
    assert outputs.shape == (2, 6, 50)


def _refusal(workspace: Path, network: Network, **spec: object) -> EngineError:
    with pytest.raises(EngineError) as raised:
        run_job(workspace, network, **spec)  # type: ignore[arg-type]
    assert raised.value.hint
    return raised.value


def _spoilt(value: float) -> Network:
    seeded()
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in module[2].parameters():
            parameter.view(-1)[0] = value
    return vector_network(module, 8)


def test_a_weight_that_holds_nan_is_refused_by_its_name(tmp_path: Path) -> None:
    error = _refusal(tmp_path, _spoilt(math.nan))
    assert (error.code, error.field, error.layer) == ("weights_not_numbers", "model", "2")


def test_an_original_whose_outputs_are_no_numbers_is_refused_before_any_work(tmp_path: Path) -> None:
    error = _refusal(tmp_path, _spoilt(math.inf))
    assert (error.code, error.field) == ("outputs_not_finite", "model")


def _tiny() -> Network:
    seeded()
    return vector_network(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), 2)


class Scaled(nn.Module):
    """A network that is given a number for each of its inputs besides rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 48)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        y: Tensor = self.layer(x * scale)
        return y


def test_an_input_that_is_no_row_has_to_be_the_same_for_all(tmp_path: Path) -> None:
    seeded()
    inputs = (Input("x", torch.float32, (BATCH, 48)), Input("scale", torch.float32, (48,)))
    network, x = trace(Scaled().eval(), inputs), np.random.default_rng(0).standard_normal((40, 48))
    scale = np.tile(np.arange(48.0), (40, 1))
    alike = run_job(tmp_path / "alike", network, {"x": x, "scale": scale}, finetune={"epochs": 0})
    assert alike.outputs(*(values.astype(np.float32) for values in (x, scale[0]))).shape == (40, 48)
    scale[-1, -1] = 0.0
    with pytest.raises(EngineError) as raised:
        run_job(tmp_path / "apart", network, {"x": x, "scale": scale})
    assert raised.value.code == "rows_differ"


def test_a_model_of_layers_too_small_cannot_reach_a_budget_and_says_what_it_can(tmp_path: Path) -> None:
    error = _refusal(tmp_path, _tiny())
    assert (error.code, error.field) == ("budget_unreachable", "target.keep")
    assert "100.00%" in error.detail


@pytest.mark.parametrize("selection", ["fraction", pytest.param("energy", marks=pytest.mark.slow)])
def test_where_no_budget_binds_layers_too_small_stay_dense_with_a_reason(
    selection: str, tmp_path: Path
) -> None:
    job = run_job(tmp_path, _tiny(), ranks={"selection": selection})
    assert all(layer.method == "keep" and layer.reason for layer in job.candidate.layers)
    assert job.candidate.verdict == "not_worth_it"
    assert job.candidate.fidelity.relative_error == 0.0


def _classifier(batch: int) -> Network:
    """Exported for batches of one length only."""
    seeded()
    module = nn.Sequential(
        nn.Linear(8, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 40), nn.Linear(40, 4)
    )
    return trace(module.eval(), (Input("x", torch.float32, (batch, 8)),))


def _rows(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    x = random.standard_normal((count, 8)).astype(np.float32)
    return {"x": x, "target": random.integers(0, 4, count)}


@pytest.mark.parametrize("batch", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_fixed_batch_is_trained_calibrated_and_measured(batch: int, tmp_path: Path) -> None:
    job = run_job(
        tmp_path, _classifier(batch), _rows(650), _rows(3), target={"keep": 0.6}, task="classification"
    )
    assert job.is_finite()
    assert job.candidate.finetune
    assert job.candidate.metric is not None
    assert job.candidate.metric.n == 3
    assert job.outputs(_rows(batch)["x"]).shape == (batch, 4)


@pytest.mark.slow
def test_rows_that_fill_no_batch_are_not_trained_on_and_the_job_says_so(tmp_path: Path) -> None:
    job = run_job(tmp_path, _classifier(64), _rows(20), target={"keep": 0.6}, task="classification")
    assert ("not_finetuned", None) in job.notices
    assert (job.candidate.finetune, job.report.control) == ([], None)
