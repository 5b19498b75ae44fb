"""What a row is worth agrees with the metric that jobs report."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from app.contract.spec import Task
from benchmarks.row_values import closeness, row_values
from tests.workers.engine.networks import vector_network
from workers.engine.data import IGNORED_LABEL
from workers.engine.measure.quality import evaluate


def _context(task: Task) -> Any:
    return SimpleNamespace(task=task, original=vector_network(nn.Linear(4, 5), 4))


def _values(task: Task, outputs: torch.Tensor, target: torch.Tensor | None) -> Any:
    inputs = [torch.zeros(len(outputs), 4)]
    return row_values(_context(task), outputs, outputs.flip(0), inputs, target)


def test_hits_make_up_top1() -> None:
    outputs, target = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 5
    target[:3] = IGNORED_LABEL
    values = _values(Task.CLASSIFICATION, outputs, target)
    assert values.shape == (37,)
    assert set(values) <= {0.0, 1.0}
    assert values.mean() == pytest.approx(evaluate(outputs, target, "classification").value)


@pytest.mark.parametrize("shape", [(12, 7), (12,)])
def test_likelihoods_make_up_perplexity(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, target = torch.randn(*shape, 5, generator=generator), torch.randint(0, 5, shape)
    values = _values(Task.LANGUAGE_MODELING, outputs, target)
    assert values.shape == (12,)
    found = evaluate(outputs, target, "language-modeling").value
    assert math.exp(-values.mean()) == pytest.approx(found)


def test_tokens_without_a_label_count_for_no_row() -> None:
    outputs, target = torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64)
    outputs[0, 1, 0], target[0, 1] = 100.0, IGNORED_LABEL
    target[1] = IGNORED_LABEL
    assert _values(Task.LANGUAGE_MODELING, outputs, target) == pytest.approx([-math.log(5)])


def test_outputs_that_are_no_numbers_are_the_worst_there_are() -> None:
    outputs, target = torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64)
    outputs[0, 0] = math.nan
    assert _values(Task.CLASSIFICATION, outputs, target).tolist() == [0.0, 1.0]
    worst, usual = _values(Task.LANGUAGE_MODELING, outputs, target)
    assert worst < -80.0 < usual


def test_without_a_task_the_original_is_right() -> None:
    outputs = torch.eye(5)
    np.testing.assert_array_equal(_values(Task.NONE, outputs, None), [0.0, 0.0, 1.0, 0.0, 0.0])


def test_values_are_not_compared() -> None:
    with pytest.raises(ValueError, match="regression"):
        _values(Task.REGRESSION, torch.zeros(2, 5), torch.zeros(2, 5))


@pytest.mark.parametrize("shape", [(6, 3, 5), (6, 5)])
def test_what_is_like_the_original_is_closest(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    original, other = (torch.randn(*shape, generator=generator) for _ in range(2))
    context, inputs = _context(Task.NONE), [torch.zeros(6, 4)]
    np.testing.assert_allclose(closeness(context, original, original, inputs), 0.0, atol=1e-12)
    divergence = F.kl_div(other.log_softmax(-1), original.softmax(-1), reduction="none").sum(-1)
    expected = -divergence.reshape(6, -1).mean(1)
    np.testing.assert_allclose(closeness(context, other, original, inputs), expected, rtol=1e-4)


def test_no_numbers_are_far_from_the_original() -> None:
    outputs = torch.full((2, 5), math.nan)
    assert (closeness(_context(Task.NONE), outputs, torch.eye(2, 5), [torch.zeros(2, 4)]) < -50.0).all()
