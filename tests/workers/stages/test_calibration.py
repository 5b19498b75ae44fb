"""How many rows the stages take at a time, and how many they judge by."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from app.contract.spec import JobSpec, Weighting
from tests.workers.engine.networks import vector_network
from workers.engine.formats import pt2
from workers.messages import Order
from workers.stages import calibration, plan
from workers.stages.context import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A job on a network of 16 inputs, 64 and 4 outputs, with 200 train rows."""
    (tmp_path / "inputs").mkdir()
    network = vector_network(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)), 16)
    pt2.write(network, tmp_path / "inputs" / "model")
    x = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    with (tmp_path / "inputs" / "train").open("wb") as file:
        np.savez(file, x=x)
    spec = JobSpec.model_validate({"model": "mdl_" + "0" * 32, "finetune": {"epochs": 0}})
    order = Order(
        job_id="job_" + "0" * 32,
        kind="compress",
        attempt=1,
        spec=spec,
        formats={"model": "pt2", "train": "npz"},
    )
    return Context(order, tmp_path, lambda _: None)


def _sizes(context: Context) -> list[int]:
    rows = calibration.calibration_rows(context)
    assert rows is not None
    return [len(inputs[0]) for inputs, _ in calibration.batches(context, rows.first(35))]


def test_batches_are_smaller_where_activations_are_large(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _sizes(context) == [16, 16, 3]
    assert context.row_bytes == 4 * (64 + 64 + 4)  # what three calls make
    monkeypatch.setattr(calibration, "_BATCH_BYTES", 10 * context.row_bytes)
    assert _sizes(context) == [10, 10, 10, 5]
    monkeypatch.setattr(calibration, "_BATCH_BYTES", context.row_bytes // 2)
    assert _sizes(context) == [1] * 35


def test_one_layer_is_judged_by_as_many_outputs_as_are_cheap(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_judged() -> int:
        return sum(map(len, calibration.sensitivity_judge(context)._wanted))

    assert rows_judged() == 32
    monkeypatch.setattr(calibration, "_SENSITIVITY_BYTES", 20 * 4 * 4)
    assert rows_judged() == 20
    monkeypatch.setattr(calibration, "_SENSITIVITY_BYTES", 1)
    assert rows_judged() == 1


def test_as_much_is_remembered_of_the_rows_judged_as_memory_allows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = calibration.sensitivity_judge(context)
    assert judge.remembered >= 2
    monkeypatch.setattr(calibration, "_REMEMBERED_BYTES", 16 * context.row_bytes)
    assert judge.remembered == 1
    monkeypatch.setattr(calibration, "_REMEMBERED_BYTES", 15 * context.row_bytes)
    assert judge.remembered == 0


def test_one_layer_is_judged_on_fewer_rows_where_these_are_dear(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    macs = 16 * 64 + 64 * 4
    for budget, rows in ((macs * 40, 32), (macs * 12, 12), (macs, 4)):
        monkeypatch.setattr(calibration, "_SENSITIVITY_MACS", budget)
        assert sum(map(len, calibration.sensitivity_judge(context)._wanted)) == rows


def test_where_a_network_is_dear_to_run_one_weighting_is_tried_and_no_depth(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration.gather(context, context.layers(context.original))
    assert len(calibration.candidates(context)) > 1
    assert plan.weighs_depth(context)
    monkeypatch.setattr(calibration, "_SENSITIVITY_MACS", 16 * 64 + 64 * 4)
    assert calibration.candidates(context) == [Weighting.TWO_SIDED]
    assert not plan.weighs_depth(context)


def test_gradients_are_trusted_alone_where_enough_rows_tell_them(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = calibration.calibration_rows(context)
    assert rows is not None
    calibration.gather(context, context.layers(context.original))
    monkeypatch.setattr(calibration, "ENOUGH_ROWS", len(rows))
    assert calibration.candidates(context) == [Weighting.TWO_SIDED]
    monkeypatch.setattr(calibration, "ENOUGH_ROWS", len(rows) + 1)
    assert calibration.candidates(context) == [Weighting.INPUTS, Weighting.TWO_SIDED]
    monkeypatch.setattr(calibration, "_THIN_ROWS", len(rows) + 1)
    assert calibration.candidates(context) == [Weighting.NONE, Weighting.INPUTS, Weighting.TWO_SIDED]
