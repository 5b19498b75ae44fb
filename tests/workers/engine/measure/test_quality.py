"""Metrics against values worked out by hand or by the definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from workers.engine.errors import EngineError
from workers.engine.graph.network import Dimension, Input, trace
from workers.engine.graph.outputs import OutputKind
from workers.engine.measure.quality import Task, evaluate, judgeable, predict, wilson

BATCH = Dimension("batch")


def test_rows_come_back_in_order_whatever_the_batch_size() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval()
    network = trace(module, [Input("x", torch.float32, (BATCH, 3))])
    rows = np.random.default_rng(0).normal(size=(10, 3))  # double precision: cast to the input's dtype
    expected = module(torch.tensor(rows, dtype=torch.float32)).detach()
    for batch_size in (1, 4, 10, 64):
        outputs = predict(network, {"x": rows}, batch_size)
        assert torch.allclose(outputs, expected, atol=1e-6)
        assert not outputs.requires_grad


def test_arrays_are_taken_in_the_order_of_the_inputs() -> None:
    class Difference(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return a - b, a

    network = trace(Difference(), [Input(name, torch.float32, (BATCH, 2)) for name in "ab"])
    arrays = {"a": np.full((3, 2), 5.0), "b": np.ones((3, 2))}
    assert torch.equal(predict(network, arrays, 2), torch.full((3, 2), 4.0))


def test_a_fixed_batch_is_filled_up_and_cut_again() -> None:
    network = trace(nn.Flatten(), [Input("x", torch.float32, (4, 2, 1))])
    rows = np.arange(12.0).reshape(6, 2, 1)
    assert torch.equal(predict(network, {"x": rows}, 100), torch.arange(12.0).reshape(6, 2))


def test_a_batch_is_kept_within_what_the_network_takes() -> None:
    network = trace(nn.Flatten(), [Input("x", torch.float32, (Dimension("batch", 3, 4), 2, 1))])
    rows = np.arange(18.0).reshape(9, 2, 1)
    assert torch.equal(predict(network, {"x": rows}, 100), torch.arange(18.0).reshape(9, 2))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0)


def test_the_output_of_a_network_for_one_row_may_have_lost_its_axis() -> None:
    network = trace(Mean(), [Input("x", torch.float32, (1, 2))])
    rows = np.arange(6.0).reshape(3, 2)
    assert torch.equal(predict(network, {"x": rows}, 5), torch.arange(6.0).reshape(3, 2))


def test_rows_of_states_go_in_with_their_layers_first() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor, states: Tensor) -> Tensor:
            return x + states.sum(0)

    network = trace(
        Shifted(), [Input("x", torch.float32, (BATCH, 2)), Input("s", torch.float32, (3, BATCH, 2))]
    )
    rows, states = (
        np.random.default_rng(0).normal(size=(5, 2)),
        np.random.default_rng(1).normal(size=(5, 3, 2)),
    )
    found = predict(network, {"x": rows, "s": states}, 2)
    assert np.allclose(found, rows + states.sum(1), atol=1e-6)


def test_outputs_without_a_row_for_each_example_are_refused() -> None:
    network = trace(Mean(), [Input("x", torch.float32, (BATCH, 2))])
    with pytest.raises(EngineError) as caught:
        predict(network, {"x": np.zeros((5, 2))}, 5)
    assert caught.value.code == "outputs_without_rows"


def test_top1_and_top5_count_hits() -> None:
    outputs = torch.arange(8.0).repeat(4, 1)  # class 7 first, then 6, 5, 4, 3
    metric = evaluate(outputs, torch.tensor([7, 6, 3, 0]), "classification")
    assert (metric.name, metric.value, metric.n, metric.also) == ("top1", 0.25, 4, {"top5": 0.75})
    assert metric.ci95 == wilson(1, 4)


def test_top5_needs_six_classes() -> None:
    assert evaluate(torch.eye(5), torch.arange(5), "classification").also == {}
    assert evaluate(torch.eye(6), torch.arange(6), "classification").also == {"top5": 1.0}


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_holds_the_estimate_and_stays_a_proportion(n: int, share: float) -> None:
    successes = round(n * share)
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_perplexity_is_the_same_from_logits_and_probabilities(
    kind: OutputKind, shape: tuple[int, ...]
) -> None:
    logits = torch.randn(*shape, 11, generator=torch.manual_seed(0))
    targets = torch.randint(11, shape)
    outputs = {
        "logits": logits,
        "probabilities": logits.softmax(-1),
        "log_probabilities": logits.log_softmax(-1),
    }[kind]
    metric = evaluate(outputs, targets, "language-modeling", kind)
    expected = nn.functional.cross_entropy(logits.reshape(-1, 11), targets.reshape(-1)).exp().item()
    assert (metric.name, metric.n) == ("perplexity", 6)
    assert metric.value == pytest.approx(expected, rel=1e-5)
    assert metric.ci95[0] < metric.value < metric.ci95[1]


def test_a_uniform_guess_has_the_perplexity_of_the_vocabulary() -> None:
    metric = evaluate(torch.zeros(4, 5, 32), torch.zeros(4, 5, dtype=torch.int64), "language-modeling")
    assert metric.value == pytest.approx(32)
    assert metric.ci95 == pytest.approx((32, 32))


def test_an_underflowed_probability_is_a_large_perplexity_not_an_infinite_one() -> None:
    outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    metric = evaluate(outputs, torch.tensor([1, 1]), "language-modeling", "probabilities")
    assert 1e30 < metric.value < math.inf


def test_rmse_and_r2_follow_their_definition() -> None:
    metric = evaluate(
        torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]), "regression"
    )
    assert (metric.name, metric.value, metric.n) == ("rmse", 1.0, 4)
    assert metric.also == {"r2": pytest.approx(1 - 4 / 5)}
    assert metric.ci95[0] == 0.0
    assert metric.ci95[1] == pytest.approx(math.sqrt(1 + 1.959964 * 2 / 2))


def test_ignored_labels_are_no_hits_and_no_misses() -> None:
    outputs = torch.arange(8.0).repeat(5, 1)
    outputs[4] = math.nan
    metric = evaluate(outputs, torch.tensor([7, -100, 6, 0, -100]), "classification")
    assert (metric.value, metric.n, metric.also["top5"]) == (1 / 3, 3, 2 / 3)
    assert metric.ci95 == wilson(1, 3)


@pytest.mark.parametrize("masked", [False, True])
def test_perplexity_is_the_mean_over_the_tokens_that_count(masked: bool) -> None:
    generator = torch.manual_seed(1)
    logits = torch.randn(6, 5, 11, generator=generator)
    targets = torch.randint(11, (6, 5), generator=generator)
    real = torch.arange(5) < torch.tensor([0, 1, 2, 3, 4, 5])[:, None]
    logits[~real] = math.nan
    ignored = targets.masked_fill(~real, -100)
    metric = (
        evaluate(logits, targets, "language-modeling", positions=real)
        if masked
        else evaluate(logits, ignored, "language-modeling")
    )
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), ignored, reduction="none").double()
    assert metric.value == pytest.approx(math.exp(losses[real].mean()), rel=1e-6)
    assert metric.n == 5  # sequences
    residuals = losses.where(real, 0).sum(1)[1:] - losses[real].mean() * torch.arange(1, 6)
    half = 1.959964 * math.sqrt(residuals.square().sum() / 4 / 5) / 3  # of a mean length of three
    assert metric.ci95[1] == pytest.approx(metric.value * math.exp(half), rel=1e-6)


def test_one_long_sequence_weighs_as_much_as_its_tokens() -> None:
    outputs = torch.zeros(2, 4, 8)
    outputs[1] += 9.0 * nn.functional.one_hot(torch.tensor(3), 8)
    targets = torch.tensor([[3, -100, -100, -100], [3, 3, 3, 3]])
    sure = -torch.log_softmax(outputs[1, 0], 0)[3].item()
    metric = evaluate(outputs, targets, "language-modeling")
    assert metric.value == pytest.approx(math.exp((math.log(8) + 4 * sure) / 5))


def test_errors_at_padded_positions_do_not_count() -> None:
    outputs, targets = torch.randn(2, 4, 3, 2, generator=torch.manual_seed(0), dtype=torch.float64)
    real = torch.tensor([[True, True, True], [True, True, False], [True, False, False], [False] * 3])
    outputs[~real] = math.nan
    metric = evaluate(outputs, targets, "regression", positions=real)
    errors = (outputs - targets)[real].square()
    assert metric.n == 3
    assert metric.value == pytest.approx(math.sqrt(errors.mean()))
    centre = torch.stack([targets[:, t][real[:, t]].mean(0) for t in range(3)])
    spread = (targets - centre)[real].square().sum()
    assert metric.also["r2"] == pytest.approx(float(1 - errors.sum() / spread))


@pytest.mark.parametrize(
    ("labels", "task", "enough"),
    [
        ([1, -100, -100], "classification", True),
        ([-100, -100], "classification", False),
        ([[1, 2], [-100, -100]], "language-modeling", False),
        ([[1, -100], [-100, 2]], "language-modeling", True),
        ([1], "regression", False),
        ([-100, -100], "regression", True),
    ],
)
def test_a_metric_needs_as_many_examples_as_its_interval(labels: list[int], task: Task, enough: bool) -> None:
    assert judgeable(torch.tensor(labels), task) is enough


def test_padded_labels_do_not_make_an_example() -> None:
    labels, real = torch.ones(2, 2, dtype=torch.int64), torch.tensor([[True, False], [False, False]])
    assert judgeable(labels, "language-modeling")
    assert not judgeable(labels, "language-modeling", real)


def test_r2_is_left_out_where_targets_do_not_vary() -> None:
    assert evaluate(torch.tensor([1.0, 2.0]), torch.ones(2), "regression").also == {}


@pytest.mark.parametrize(
    ("outputs", "targets", "task", "code"),
    [
        (torch.zeros(3, 4), torch.tensor([0, 1, 4]), "classification", "label_out_of_range"),
        (torch.zeros(3, 4), torch.tensor([0, -1, 2]), "classification", "label_out_of_range"),
        (torch.zeros(3, 2, 4), torch.full((3, 2), 9), "language-modeling", "label_out_of_range"),
        (torch.zeros(3, 4), torch.full((3,), -100), "classification", "labels_ignored"),
        (torch.zeros(3, 2, 4), torch.full((3, 2), -100), "language-modeling", "labels_ignored"),
        (torch.zeros(3, 4), torch.tensor([1, -100, -100]), "language-modeling", "too_few_examples"),
        (torch.zeros(3, 4), torch.zeros(3), "classification", "task_mismatch"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64), "classification", "task_mismatch"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), "classification", "task_mismatch"),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), "classification", "task_mismatch"),
        (torch.zeros(3, 5, 4), torch.zeros(3, dtype=torch.int64), "language-modeling", "task_mismatch"),
        (torch.zeros(3, 2), torch.zeros(3), "regression", "task_mismatch"),
        (torch.zeros(1, 2), torch.zeros(1, 2), "regression", "too_few_examples"),
        (torch.full((2, 3), math.nan), torch.zeros(2).long(), "classification", "metric_not_finite"),
        (torch.full((3,), math.nan), torch.zeros(3), "regression", "metric_not_finite"),
        (torch.full((2, 3), math.nan), torch.zeros(2).long(), "language-modeling", "metric_not_finite"),
        (torch.tensor([[0.0, -1e9]] * 2), torch.ones(2).long(), "language-modeling", "metric_not_finite"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_code(
    outputs: Tensor, targets: Tensor, task: Task, code: str
) -> None:
    with pytest.raises(EngineError) as caught:
        evaluate(outputs, targets, task)
    assert caught.value.code == code
