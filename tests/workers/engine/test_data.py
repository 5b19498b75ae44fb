"""Splits are disjoint and reproducible; batches keep rows together."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.data import Examples, split
from workers.engine.errors import EngineError
from workers.engine.graph.network import Input
from workers.engine.rows import ChosenRows, whole

ROWS = (Input("x", torch.float32, (1, 2)),)


def examples(rows: int) -> Examples:
    values = np.arange(rows)
    return Examples.of({"x": np.stack([values, values], 1).astype(np.float32), "target": values}, ROWS)


@given(st.integers(10, 300), st.integers(0, 9), st.booleans())
def test_splits_are_disjoint_cover_everything_and_depend_on_the_seed_alone(
    rows: int, seed: int, has_test: bool
) -> None:
    test = examples(7) if has_test else None
    splits, again = split(examples(rows), test, seed), split(examples(rows), test, seed)
    parts = [splits.fit, splits.calibration, splits.selection] + ([] if has_test else [splits.test])
    seen = np.concatenate(
        [whole(part.target) for part in parts if part is not None and part.target is not None]
    )
    assert sorted(seen.tolist()) == list(range(rows))
    assert splits.sizes == again.sizes
    assert splits.fit is not None
    assert again.fit is not None
    assert np.array_equal(whole(splits.fit.inputs[0]), whole(again.fit.inputs[0]))


def test_splits_copy_no_rows() -> None:
    rows = examples(50)
    splits = split(rows, None, 0)
    for part in (splits.fit, splits.calibration, splits.selection, splits.test):
        assert part is not None
        chosen = part.first(2).inputs[0]
        assert isinstance(chosen, ChosenRows)
        assert chosen._array is rows.inputs[0]


def test_targets_are_all_there_in_order() -> None:
    targets = examples(50).take(np.array([7, 3])).targets()
    assert targets is not None
    assert targets.tolist() == [7, 3]
    assert Examples(examples(5).inputs, None, ROWS).targets() is None


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(EngineError) as raised:
        split(examples(9), None, 0)
    assert (raised.value.code, raised.value.field) == ("dataset_too_small", "data.train")


def test_batches_cover_the_rows_in_order_and_may_drop_a_smaller_last_one() -> None:
    batches = list(examples(10).batches(4))
    assert [len(inputs[0]) for inputs, _ in batches] == [4, 4, 2]
    assert torch.cat([target for _, target in batches if target is not None]).tolist() == list(range(10))
    assert [len(inputs[0]) for inputs, _ in examples(10).batches(4, whole=True)] == [4, 4]


def test_a_shuffled_batch_keeps_inputs_and_targets_together() -> None:
    rows = np.random.default_rng(0).permutation(10)
    for (x,), target in examples(10).batches(3, rows=rows):
        assert target is not None
        assert x[:, 0].tolist() == target.tolist()


STATEFUL = (
    Input("x", torch.float32, (1, 2)),
    Input("states", torch.float32, (3, 1, 4), row_axis=1),
    Input("rate", torch.int64, (), row_axis=None),
)


def test_states_are_rows_of_the_data_and_layers_first_in_a_batch() -> None:
    states = np.arange(60.0).reshape(5, 3, 4)
    given = {"x": np.zeros((5, 2)), "states": states, "rate": np.full(5, 16000)}
    rows = Examples.of(given, STATEFUL).take(np.array([4, 1, 2]))
    ((_, first, rate), _), ((_, last, _), _) = rows.batches(2)
    assert (first.shape, last.shape, rate.shape) == ((3, 2, 4), (3, 1, 4), ())
    assert np.array_equal(first[:, 0], states[4])
    assert np.array_equal(last[:, 0], states[2])
    assert rate == 16000


def test_an_input_without_rows_has_one_value() -> None:
    given = {"x": np.zeros((2, 2)), "states": np.zeros((2, 3, 4)), "rate": np.array([8000, 16000])}
    with pytest.raises(EngineError) as raised:
        Examples.of(given, STATEFUL)
    assert raised.value.code == "rows_differ"
    assert "rate" in raised.value.detail


def test_a_single_input_takes_any_name_and_a_missing_one_is_named() -> None:
    named = Examples.of({"pixels": np.zeros((3, 2)), "target": np.zeros(3)}, ROWS)
    assert len(named) == 3
    with pytest.raises(EngineError) as raised:
        Examples.of({"a": np.zeros(3)}, (*ROWS, Input("mask", torch.bool, (1,))))
    assert "'x'" in raised.value.detail
