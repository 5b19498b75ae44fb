"""Which positions are real: what is a mask, and what only looks like one."""

import numpy as np
import pytest
import torch

from workers.engine.graph.network import Dimension, Input
from workers.engine.padding import has_positions, real_positions

IDS = Input("ids", torch.int64, (Dimension("n"), 3))
ONES_AND_ZEROS = [[1, 1, 0], [1, 0, 0]]


def mask(name: str = "attention_mask", dtype: torch.dtype = torch.int64, axes: int = 2) -> Input:
    return Input(name, dtype, (Dimension("n"), *[3] * (axes - 1)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize("name", ["attention_mask", "mask", "input_mask"])
def test_a_mask_is_known_by_its_name_whatever_its_dtype(name: str, dtype: torch.dtype) -> None:
    values = torch.tensor(ONES_AND_ZEROS, dtype=dtype)
    real = real_positions([IDS, mask(name, dtype)], [torch.zeros(2, 3), values])
    assert real is not None
    assert real.tolist() == [[True, True, False], [True, False, False]]


def test_stored_arrays_are_as_good_as_tensors() -> None:
    values = np.array(ONES_AND_ZEROS, np.uint8)
    values.flags.writeable = False
    real = real_positions([mask()], [values])
    assert real is not None
    assert real.sum() == 3


def test_a_mask_larger_than_is_read_at_once() -> None:
    values = np.ones((300_000, 8), np.int64)
    values[-1, -3:] = 0
    real = real_positions([mask()], [values])
    assert real is not None
    assert np.array_equal(real.numpy(), values == 1)
    values[-1, -1] = 2
    assert real_positions([mask()], [values]) is None


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (mask("key_padding_mask"), ONES_AND_ZEROS),  # true where a position is padding
        (mask("ids"), ONES_AND_ZEROS),
        (mask(axes=3), [ONES_AND_ZEROS]),
        (mask(), [[0, 0, -10_000], [0, -10_000, -10_000]]),  # added to the scores
        (mask(), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_what_only_looks_like_a_mask_is_none(spec: Input, values: list[object]) -> None:
    assert real_positions([spec], [torch.tensor(values)]) is None


def test_only_outputs_with_both_axes_and_more_have_positions() -> None:
    positions = torch.ones(2, 3, dtype=torch.bool)
    assert has_positions(torch.zeros(2, 3, 5), positions)
    assert has_positions(torch.zeros(2, 3, 1, 4), positions)
    assert not has_positions(torch.zeros(2, 3), positions)  # may be three classes
    assert not has_positions(torch.zeros(2, 4, 5), positions)
