"""How far apart two outputs are."""

import numpy as np
import pytest
import torch

from workers.engine.formats.onnx_in.check import difference


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, 4.0], [1.0, 5.0], 0.2),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([float("inf"), 1.0], [float("inf"), 1.0], 0.0),
        ([float("nan"), 1.0], [float("nan"), 1.0], 0.0),
        ([float("nan"), 1.0], [0.0, 1.0], float("inf")),
        ([float("inf"), 1.0], [0.0, 1.0], float("inf")),
        ([0.0, 1.0], [float("nan"), 1.0], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
        ([], [], 0.0),
    ],
)
def test_differences(found: list[float], expected: list[float], apart: float) -> None:
    assert difference(torch.tensor(found), np.array(expected, np.float32)) == pytest.approx(apart)
