"""Losses: zero for a perfect student, the same for logits and probabilities, never without a goal."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from workers.engine.graph.outputs import OutputKind
from workers.engine.losses import make_loss


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


def test_a_student_equal_to_its_teacher_has_no_divergence(logits: torch.Tensor) -> None:
    loss = make_loss("classes", "logits", distill=True)
    assert float(loss(logits, logits, None)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(logits + torch.randn(16, 5), logits, None)) > 0.01


def test_probabilities_and_log_probabilities_mean_what_logits_mean(logits: torch.Tensor) -> None:
    target = torch.arange(16) % 5
    other = logits.roll(1, 0)
    scales: dict[OutputKind, Callable[[torch.Tensor], torch.Tensor]] = {
        "logits": lambda t: t,
        "probabilities": lambda t: t.softmax(-1),
        "log_probabilities": lambda t: t.log_softmax(-1),
    }
    values = [
        float(make_loss("classes", kind, distill=True)(convert(logits), convert(other), target))
        for kind, convert in scales.items()
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)


def test_without_distillation_it_is_the_cross_entropy_and_without_targets_it_distils(
    logits: torch.Tensor,
) -> None:
    target = torch.arange(16) % 5
    loss = make_loss("classes", "logits", distill=False)
    assert float(loss(logits, logits, target)) == pytest.approx(float(F.cross_entropy(logits, target)))
    assert float(loss(logits, logits, None)) == pytest.approx(0.0, abs=1e-6)


def test_token_outputs_are_compared_token_by_token() -> None:
    outputs, target = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    loss = make_loss("classes", "logits", distill=False)
    expected = F.cross_entropy(outputs.flatten(0, 1), target.flatten())
    assert float(loss(outputs, outputs, target)) == pytest.approx(float(expected))


def test_values_are_compared_relative_to_their_power() -> None:
    wanted = torch.tensor([[3.0], [4.0]])
    loss = make_loss("values", "logits", distill=False)
    assert float(loss(wanted * 0, wanted, wanted.squeeze(1))) == pytest.approx(1.0)


def test_several_outputs_all_count() -> None:
    loss = make_loss("outputs", "logits", distill=True)
    one = torch.ones(4, 2)
    assert float(loss((one, one), (one, one), None)) == 0.0
    assert float(loss((one, 0 * one), (one, one), None)) == pytest.approx(0.5)
