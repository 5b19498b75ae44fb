"""What the end of a graph says about its outputs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from workers.engine.graph.network import Dimension, Input, trace
from workers.engine.graph.outputs import outputs_are, rank_classes


class Head(nn.Module):
    def __init__(self, end: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.end = end

    def forward(self, x: Tensor) -> object:
        return self.end(self.linear(x))


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda y: y, "logits"),
        (torch.relu, "logits"),
        (torch.sigmoid, "logits"),
        (lambda y: y.softmax(-1) * 2, "logits"),
        (lambda y: (y.softmax(-1) + 1).log(), "logits"),
        (lambda y: y.softmax(-1), "probabilities"),
        (lambda y: nn.functional.dropout(y.softmax(-1), training=False), "probabilities"),
        (lambda y: y.softmax(-1).reshape(-1, 2, 3).transpose(1, 2).to(torch.float64), "probabilities"),
        (lambda y: y.log_softmax(-1).exp(), "probabilities"),
        (lambda y: y.log_softmax(-1), "log_probabilities"),
        (lambda y: y.softmax(-1).log(), "log_probabilities"),
        (lambda y: (y.softmax(-1), y), "probabilities"),
        (lambda y: (y, y.softmax(-1)), "logits"),
    ],
)
def test_the_kind_of_output_is_read_through_views_and_casts(
    end: Callable[[Tensor], object], kind: str
) -> None:
    network = trace(Head(end).eval(), [Input("x", torch.float32, (Dimension("batch"), 4))])
    assert outputs_are(network) == kind


def test_an_input_passed_through_is_logits() -> None:
    network = trace(nn.Identity(), [Input("x", torch.float32, (Dimension("batch"), 4))])
    assert outputs_are(network) == "logits"


@pytest.mark.parametrize(
    ("end", "scores"),
    [
        (lambda y: y, True),
        (lambda y: y.softmax(-1), True),
        (lambda y: nn.functional.dropout(y, training=False), True),
        (torch.tanh, False),
        (nn.functional.normalize, False),
        (lambda y: y.reshape(-1, 2, 3), False),
    ],
)
def test_scores_are_what_a_last_layer_or_a_softmax_gives_one_row_an_example(
    end: Callable[[Tensor], object], scores: bool
) -> None:
    network = trace(Head(end).eval(), [Input("x", torch.float32, (Dimension("batch"), 4))])
    assert rank_classes(network) is scores
