"""Closeness of outputs."""

import math

import pytest
import torch

from workers.engine.errors import EngineError
from workers.engine.measure import chunks
from workers.engine.measure.fidelity import compare


def test_equal_outputs_are_perfectly_close() -> None:
    outputs = torch.cat([torch.randn(9, 5), torch.zeros(1, 5)])
    fidelity = compare(outputs, outputs)
    assert (fidelity.relative_error, fidelity.top1_agreement, fidelity.n) == (0.0, 1.0, 10)
    assert fidelity.cosine == pytest.approx(1.0, abs=1e-12)


def test_error_cosine_and_agreement_follow_their_definition() -> None:
    original = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    candidate = torch.tensor([[0.0, 3.0], [0.0, 8.0]])
    fidelity = compare(original, candidate)
    assert fidelity.relative_error == pytest.approx(math.sqrt(9 + 9 + 16) / 5)
    assert fidelity.cosine == pytest.approx(0.5)
    assert (fidelity.top1_agreement, fidelity.n) == (0.5, 2)


def test_agreement_of_sequences_is_by_position() -> None:
    original = torch.eye(3).repeat(2, 1, 1)
    candidate = original.clone()
    candidate[0, 0] = torch.tensor([0.0, 1.0, 0.0])
    assert compare(original, candidate).top1_agreement == pytest.approx(5 / 6)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2, 3, 3)])
def test_outputs_without_classes_have_no_agreement(shape: tuple[int, ...]) -> None:
    outputs = torch.rand(shape)
    assert compare(outputs, outputs).top1_agreement is None


def test_padding_is_left_out_even_where_it_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    original, candidate = torch.randn(5, 4, 7), torch.randn(5, 4, 7)
    positions = torch.rand(5, 4) > 0.4
    positions[0], positions[1:, 0] = False, True
    original[0, 1], candidate[~positions] = math.nan, math.inf
    monkeypatch.setattr(chunks, "_VALUES", 60)
    found = compare(original, candidate, positions)
    a, b = original[positions].double(), candidate[positions].double()
    assert found.n == 4
    assert found.relative_error == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-12)
    assert found.top1_agreement == pytest.approx(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
    rows = [(original[i][positions[i]], candidate[i][positions[i]]) for i in range(1, 5)]
    cosines = [torch.cosine_similarity(p.flatten(), q.flatten(), dim=0) for p, q in rows]
    assert found.cosine == pytest.approx(float(torch.stack(cosines).mean()), rel=1e-6)


def test_outputs_without_positions_count_whole() -> None:
    outputs = torch.randn(4, 3)
    assert compare(outputs, outputs.flip(0), torch.zeros(4, 3, dtype=torch.bool)) == compare(
        outputs, outputs.flip(0)
    )


def test_pieces_sum_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    original, candidate = torch.randn(50, 7), torch.randn(50, 7)
    whole = compare(original, candidate)
    monkeypatch.setattr(chunks, "_VALUES", 20)
    pieces = compare(original, candidate)
    assert pieces.relative_error == pytest.approx(whole.relative_error, rel=1e-12)
    assert pieces.cosine == pytest.approx(whole.cosine, rel=1e-12)
    assert pieces.top1_agreement == whole.top1_agreement


def test_sums_are_taken_in_double_precision() -> None:
    original = torch.ones(100, 1000, dtype=torch.float16) * 300  # squares overflow half precision
    assert compare(original, original * 0.5).relative_error == pytest.approx(0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(EngineError) as caught:
        compare(torch.ones(2, 3), torch.full((2, 3), value))
    assert caught.value.code == "metric_not_finite"
