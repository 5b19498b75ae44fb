"""Losses: zero for a perfect student, the same for logits and probabilities, never without a goal."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from workers.engine.graph.outputs import OutputKind
from workers.engine.losses import Goal, _places, make_loss


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


def test_a_student_equal_to_its_teacher_has_no_divergence(logits: torch.Tensor) -> None:
    loss = make_loss("classes", "logits")
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
        float(make_loss("classes", kind, labels=0.5)(convert(logits), convert(other), target))
        for kind, convert in scales.items()
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)


def test_labels_alone_are_cross_entropy_and_without_targets_it_distils(
    logits: torch.Tensor,
) -> None:
    target = torch.arange(16) % 5
    loss = make_loss("classes", "logits", labels=1.0)
    assert float(loss(logits, logits, target)) == pytest.approx(float(F.cross_entropy(logits, target)))
    assert float(loss(logits, logits, None)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("goal", ["classes", "values"])
def test_the_share_of_the_labels_is_between_both(goal: Goal) -> None:
    student, teacher, target = torch.randn(8, 5), torch.randn(8, 5), torch.randn(8, 5)
    target = target.argmax(1) if goal == "classes" else target
    teachers, third, labels = (
        float(make_loss(goal, "logits", labels=share)(student, teacher, target))
        for share in (0.0, 1 / 3, 1.0)
    )
    assert third == pytest.approx((2 * teachers + labels) / 3)


def test_token_outputs_are_compared_token_by_token() -> None:
    outputs, target = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    loss = make_loss("classes", "logits", labels=1.0)
    expected = F.cross_entropy(outputs.flatten(0, 1), target.flatten())
    assert float(loss(outputs, outputs, target)) == pytest.approx(float(expected))


@pytest.mark.parametrize("labels", [0.0, 0.5, 1.0])
def test_ignored_labels_and_padding_count_in_no_loss(labels: float) -> None:
    student, teacher = torch.randn(3, 7, 11), torch.randn(3, 7, 11)
    target, positions = torch.randint(0, 11, (3, 7)), torch.rand(3, 7) > 0.3
    target[0], target[2, 3], positions[1, 1] = -100, -100, False
    loss = make_loss("classes", "logits", labels=labels)
    counts = (target != -100) & positions
    expected = loss(student[counts], teacher[counts], target[counts])
    assert float(loss(student, teacher, target, positions)) == pytest.approx(float(expected))
    assert float(loss(student, teacher, None, positions)) == pytest.approx(
        float(loss(student[positions], teacher[positions], None))
    )


@pytest.mark.parametrize("labels", [0.0, 0.5, 1.0])
def test_a_batch_of_ignored_labels_teaches_nothing(labels: float) -> None:
    student = torch.randn(4, 5, requires_grad=True)
    loss = make_loss("classes", "logits", labels=labels)
    value = loss(student, torch.randn(4, 5), torch.full((4,), -100))
    torch.autograd.backward(value)
    assert float(value.detach()) == 0.0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("goal", ["values", "outputs"])
def test_values_at_padded_positions_do_not_count(goal: Goal) -> None:
    student, teacher = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    target, positions = torch.randn(3, 4, 2), torch.rand(3, 4) > 0.3
    positions[:, 0] = True
    loss = make_loss(goal, "logits")
    expected = loss(student[positions], teacher[positions], target[positions])
    assert float(loss(student, teacher, target, positions)) == pytest.approx(float(expected))


def test_the_first_of_several_outputs_ranks_the_classes(logits: torch.Tensor) -> None:
    loss = make_loss("classes", "logits")
    target, hidden = torch.arange(16) % 5, torch.randn(16, 3)
    alone = float(loss(logits, logits.roll(1, 0), target))
    assert float(loss((logits, hidden), (logits.roll(1, 0), hidden), target)) == pytest.approx(alone)


def test_labels_do_not_matter_where_the_goal_is_the_original(logits: torch.Tensor) -> None:
    loss = make_loss("outputs", "logits")
    labels = torch.zeros(16, dtype=torch.int64)
    assert float(loss(logits, 2 * logits, labels)) == float(loss(logits, 2 * logits, None)) > 0


def test_values_are_compared_relative_to_their_power() -> None:
    wanted = torch.tensor([[3.0], [4.0]])
    loss = make_loss("values", "logits", labels=1.0)
    assert float(loss(wanted * 0, wanted, wanted.squeeze(1))) == pytest.approx(1.0)


def test_several_outputs_all_count() -> None:
    loss = make_loss("outputs", "logits")
    one = torch.ones(4, 2)
    assert float(loss((one, one), (one, one), None)) == 0.0
    assert float(loss((one, 0 * one), (one, one), None)) == pytest.approx(0.5)


def test_large_outputs_of_which_all_count_are_not_copied() -> None:
    scores = torch.randn(2, 3, 5)
    assert _places(scores, torch.ones(2, 3, dtype=torch.bool)).data_ptr() == scores.data_ptr()
    some = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.equal(_places(scores, some), torch.stack([scores[0, 0], scores[0, 2], scores[1, 2]]))
