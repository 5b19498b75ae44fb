"""Fine-tuning recovers, is reproducible, records its curve, and refuses to go on with what is no number."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.workers.engine.networks import BATCH, Convolutional, image_network, seeded, vector_network
from workers.engine.checkpoint import tensors
from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.finetune import Judged, Schedule, Trained, finetune, labels_share
from workers.engine.graph.network import Input, Network, trace
from workers.engine.losses import make_loss


def _networks() -> tuple[Network, Network]:
    seeded(0)
    teacher = image_network(Convolutional(width=8))
    student = teacher.copy()
    with torch.no_grad():
        for parameter in student.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return student, teacher


def _examples(teacher: Network, labelled: bool = False) -> Examples:
    x = np.random.default_rng(0).standard_normal((96, 3, 8, 8)).astype(np.float32)
    target = teacher(torch.from_numpy(x)).argmax(-1).numpy() if labelled else None
    return Examples((x,), target, teacher.inputs)


def _train(
    epochs: int = 3,
    rate: float | None = 3e-3,
    seed: int = 0,
    labelled: bool = False,
    judge: Callable[[Network], Judged] = lambda _: Judged(0.5),
    **schedule: Any,
) -> tuple[Network, Trained]:
    student, teacher = _networks()
    trained = finetune(
        student,
        teacher,
        _examples(teacher, labelled),
        Schedule(epochs, rate, 16, seed, **schedule),
        make_loss("classes", "logits"),
        judge=judge,
        advance=lambda _done, _of: None,
    )
    return student, trained


def _weights(network: Network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.module.parameters()])


@pytest.mark.parametrize("labelled", [False, True])
def test_the_loss_falls(labelled: bool) -> None:
    curve = _train(epochs=6, labelled=labelled)[1].curve
    assert curve[-1].loss < 0.7 * curve[0].loss


def test_the_curve_has_the_start_and_every_epochs_end_with_its_metric_and_counts_all_steps() -> None:
    curve = _train(epochs=3)[1].curve
    assert [point.step for point in curve if point.metric is not None] == [0, 6, 12, 18]
    assert [point.step for point in curve] == sorted(point.step for point in curve)


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    weights = [_weights(network) for network, _ in (_train(), _train(), _train(seed=1))]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_a_rate_it_is_found_and_finding_it_leaves_no_trace() -> None:
    found, trained = _train(rate=None)
    assert trained.learning_rate is not None
    assert 0.0 < trained.learning_rate < 1e-3
    given, again = _train(rate=trained.learning_rate)
    assert again.learning_rate == trained.learning_rate
    for path, tensor in tensors(found).items():
        assert torch.equal(tensor, tensors(given)[path]), path


def test_labels_are_worth_the_loss_until_the_original_has_learned_them() -> None:
    seeded()
    network, generator = vector_network(nn.Linear(4, 3), 4), torch.Generator().manual_seed(0)
    x, target = torch.randn(256, 4, generator=generator), torch.randint(0, 3, (256,), generator=generator)
    target[x[:, 0] > 0] = 0  # something to learn, and noise
    examples = Examples((x.numpy(),), target.numpy(), network.inputs)
    schedule, loss = Schedule(1, None, 16, 0), make_loss("classes", "logits", labels=1.0)

    def share() -> float:
        return labels_share(network, examples, schedule, loss)

    assert 0.9 < share() <= 1.0
    optimizer = torch.optim.LBFGS(list(network.module.parameters()), max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(network(x), target)
        torch.autograd.backward(value)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's own gap
    assert share() == 0.0


def _losses(*losses: float) -> tuple[Callable[[Network], Judged], list[torch.Tensor]]:
    """A judge that finds these losses in turn, and the weights that it saw."""
    seen: list[torch.Tensor] = []

    def judge(network: Network) -> Judged:
        seen.append(_weights(network))
        return Judged(-losses[len(seen) - 1], losses[len(seen) - 1])

    return judge, seen


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ((5, 4, 3, 2), 3),
        ((5, 2, 3, 4), 1),
        ((5, 3, 2, 2), 2),  # of equals the earliest
        ((1, 3, 2, 2), 0),
        ((math.nan, 3, math.nan, 4), 1),
        ((math.nan, math.nan, math.nan, math.nan), 0),
    ],
)
def test_the_best_epochs_weights_stay(losses: tuple[float, ...], kept: int) -> None:
    judge, seen = _losses(*losses)
    student, trained = _train(epochs=3, judge=judge)
    assert (trained.kept, trained.epochs) == (kept, 3)
    assert torch.equal(_weights(student), seen[kept])
    assert not any(torch.equal(seen[kept], other) for epoch, other in enumerate(seen) if epoch != kept)


@pytest.mark.parametrize(
    ("losses", "kept"),
    [((5, 5.5, 5.9, 5.9), 3), ((5, 4, 4.5, 6), 2), ((5, 5.9, 6.8, 7.7), 1), ((1, 3, 3, 3), 0)],
)
def test_within_a_standard_error_of_the_best_the_latest_stays(losses: tuple[float, ...], kept: int) -> None:
    told = iter(losses)
    _, trained = _train(epochs=3, judge=lambda _: Judged(loss=next(told), error=1.0))
    assert trained.kept == kept


def test_statistics_go_back_with_the_weights() -> None:
    judge, _ = _losses(1, 2)
    student, _ = _train(epochs=1, judge=judge)
    before, _ = _networks()
    assert all(map(torch.equal, student.module.buffers(), before.module.buffers()))


@pytest.mark.parametrize(
    ("losses", "patience", "epochs"),
    [((5, 6, 7, 1), 2, 2), ((5, 6, 4, 5, 6, 1), 2, 4), ((5, 4, 4), 1, 2), ((5, 4, 3, 2), 1, 3)],
)
def test_training_ends_when_as_many_epochs_as_patience_allows_brought_nothing(
    losses: tuple[float, ...], patience: int, epochs: int
) -> None:
    judge, _ = _losses(*losses)
    _, trained = _train(epochs=len(losses) - 1, judge=judge, patience=patience)
    assert trained.epochs == epochs
    assert trained.curve[-1].step == 6 * epochs


def test_what_is_not_judged_is_trained_to_the_end() -> None:
    _, trained = _train(epochs=3, judge=lambda _: Judged(), patience=1)
    assert (trained.kept, trained.epochs) == (3, 3)


def test_a_loss_that_is_no_number_ends_it_with_the_way_out() -> None:
    student, teacher = _networks()
    with torch.no_grad():
        next(student.module.parameters()).fill_(math.inf)
    with pytest.raises(EngineError) as raised:
        finetune(
            student,
            teacher,
            _examples(teacher),
            Schedule(1, 0.1, 16, 0),
            make_loss("classes", "logits"),
            judge=lambda _: Judged(),
            advance=lambda _done, _of: None,
        )
    assert (raised.value.code, raised.value.field) == ("training_diverged", "finetune.learning_rate")


def test_a_batch_of_one_row_leaves_the_running_statistics_alone() -> None:
    seeded()
    network = vector_network(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), 4)
    teacher, before = network.copy(), network.module.get_buffer("1.running_var").clone()
    finetune(
        network,
        teacher,
        Examples(
            (np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32),), None, network.inputs
        ),
        Schedule(1, 1e-3, 1, 0),
        make_loss("outputs", "logits"),
        judge=lambda _: Judged(),
        advance=lambda _done, _of: None,
    )
    assert torch.equal(network.module.get_buffer("1.running_var"), before)
    assert all(parameter.isfinite().all() for parameter in network.module.parameters())


class _Padded(nn.Module):
    """Scores for every position."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 5)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.table(ids * mask)
        return scores


def test_what_a_mask_marks_as_padding_teaches_nothing() -> None:
    seeded()
    student = trace(_Padded().eval(), [Input(name, torch.int64, (BATCH, 3)) for name in ("ids", "mask")])
    teacher, before = student.copy(), student.module.get_parameter("table.weight").detach().clone()
    with torch.no_grad():
        teacher.module.get_parameter("table.weight").normal_()
    ids, mask = np.full((8, 3), 4), np.tile([1, 1, 0], (8, 1))
    finetune(
        student,
        teacher,
        Examples((ids, mask), None, student.inputs),
        Schedule(2, 1e-2, 4, 0),
        make_loss("classes", "logits"),
        judge=lambda _: Judged(),
        advance=lambda _done, _of: None,
    )
    changed = (student.module.get_parameter("table.weight") != before).any(1)
    assert changed.nonzero().flatten().tolist() == [4]  # padding would have looked up row 0


def test_dropout_is_active_while_training_and_off_afterwards() -> None:
    network = image_network(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))
    )
    x = np.ones((32, 3, 8, 8), np.float32)
    finetune(
        network,
        network.copy(),
        Examples((x,), None, network.inputs),
        Schedule(1, 1e-3, 8, 0),
        make_loss("outputs", "logits"),
        judge=lambda _: Judged(),
        advance=lambda _done, _of: None,
    )
    batch = torch.from_numpy(x)
    assert torch.equal(network(batch), network(batch))
