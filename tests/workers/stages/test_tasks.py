"""Tasks through whole jobs: several inputs, whole numbers, masks, ignored labels, little data and much."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.workers.engine.networks import BATCH, seeded
from tests.workers.stages.jobs import Arrays, Finished, run_job
from workers.engine.errors import EngineError
from workers.engine.graph.network import Dimension, Input, Network, trace
from workers.stages.inspect import describe

VOCABULARY, WIDTH, LENGTH = 40, 32, 12


class Attention(nn.Module):
    """One masked attention and one feed-forward block over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.table(ids)
        scores = (self.mix(x) @ x.transpose(1, 2)) / math.sqrt(WIDTH)
        scores = scores.masked_fill(attention_mask[:, None, :] == 0, -math.inf)
        x = x + scores.softmax(-1) @ x
        out: Tensor = self.head(x + self.down(self.up(x).relu()))
        return out


class Sum(nn.Module):
    """Two measurements, each with its own way in."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 48), nn.Linear(5, 48)
        self.middle, self.out = nn.Linear(48, 48), nn.Linear(48, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = self.out(self.middle((self.left(a) + self.right(b)).relu()).relu())
        return out


def language_model() -> Network:
    seeded()
    shape = (BATCH, Dimension("length", 1, 64, 6))
    return trace(Attention().eval(), [Input(name, torch.int64, shape) for name in ("ids", "attention_mask")])


def sentences(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of several lengths; the first token of each has no label, and padding may have any."""
    random = np.random.default_rng(seed)
    real = np.arange(LENGTH) < random.integers(3, LENGTH + 1, rows)[:, None]
    target = random.integers(0, VOCABULARY, (rows, LENGTH))
    target[:, 0] = -100
    ids = random.integers(0, VOCABULARY, (rows, LENGTH))
    return {"ids": ids, "attention_mask": real.astype(np.int64), "target": target}


def original_outputs(data: Arrays) -> Tensor:
    outputs: Tensor = language_model()(*(torch.from_numpy(data[name]) for name in ("ids", "attention_mask")))
    return outputs.detach()


def sum_network() -> Network:
    seeded()
    shapes = {"a": (BATCH, 6), "b": (BATCH, 5)}
    return trace(Sum().eval(), [Input(name, torch.float32, shape) for name, shape in shapes.items()])


def measurements(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = {"b": 5, "target": 2, "a": 6}  # in another order than the network's
    return {name: random.standard_normal((rows, size)).astype(np.float32) for name, size in sizes.items()}


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_job(
        tmp_path_factory.mktemp("language"),
        language_model(),
        sentences(60),
        sentences(30, seed=1),
        task="language-modeling",
        target={"of": "parameters", "keep": 0.7},
        outputs=["pt2", "onnx"],
    )


def test_perplexity_is_over_the_tokens_that_are_real_and_labelled(language: Finished) -> None:
    test = sentences(30, seed=1)
    counts = torch.from_numpy((test["attention_mask"] == 1) & (test["target"] != -100))
    labels = torch.from_numpy(test["target"])[counts]
    ours = language.outputs(test["ids"], test["attention_mask"])[counts]
    theirs = original_outputs(test)[counts]
    original, candidate = language.report.original.metric, language.candidate.metric
    assert original is not None
    assert candidate is not None
    assert candidate.value == pytest.approx(math.exp(F.cross_entropy(ours, labels)), rel=1e-4)
    assert original.value == pytest.approx(math.exp(F.cross_entropy(theirs, labels)), rel=1e-4)
    assert original.n == candidate.n == 30


def test_fidelity_leaves_padding_out(language: Finished) -> None:
    test = sentences(30, seed=1)
    real = torch.from_numpy(test["attention_mask"] == 1)
    ours = language.outputs(test["ids"], test["attention_mask"])[real]
    theirs = original_outputs(test)[real]
    found = language.candidate.fidelity
    assert found.relative_error == pytest.approx(float((ours - theirs).norm() / theirs.norm()), rel=1e-4)
    same = (ours.argmax(-1) == theirs.argmax(-1)).double().mean()
    assert found.top1_agreement == pytest.approx(float(same))


def test_a_model_of_two_inputs_is_trained_and_smaller_in_both_formats(language: Finished) -> None:
    assert language.report.control is not None
    assert language.candidate.finetune
    assert language.candidate.parameters <= 0.7 * language.report.original.parameters
    test = sentences(5, seed=2)
    session = ort.InferenceSession(language.onnx, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {name: test[name] for name in ("ids", "attention_mask")})
    expected = language.outputs(test["ids"], test["attention_mask"])
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)


def test_the_description_says_which_indices_an_input_takes() -> None:
    ids, mask = describe(language_model(), []).inputs
    assert (ids.minimum, ids.maximum) == (0, VOCABULARY - 1)
    assert (mask.minimum, mask.maximum) == (None, None)


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Train rows alone, as few as can be split."""
    workspace = tmp_path_factory.mktemp("regression")
    return run_job(workspace, sum_network(), measurements(10), task="regression", target={"keep": 0.6})


def test_the_fewest_train_rows_are_split_trained_on_and_measured(regression: Finished) -> None:
    assert regression.report.splits == {"fit": 6, "calibration": 1, "selection": 1, "test": 2}
    metric = regression.candidate.metric
    assert metric is not None
    assert (metric.name, metric.n, set(metric.also)) == ("rmse", 2, {"r2"})
    assert regression.candidate.finetune
    assert {point.metric for point in regression.candidate.finetune} == {None}  # one row has no interval
    assert regression.is_finite()


def test_two_float_inputs_are_told_apart_by_name(tmp_path: Path) -> None:
    test = measurements(20, seed=1)
    job = run_job(tmp_path, sum_network(), test=test, task="regression", target={"keep": 0.6})
    metric = job.candidate.metric
    assert metric is not None
    errors = job.outputs(test["a"], test["b"]) - torch.from_numpy(test["target"])
    assert metric.value == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-4)
    assert (job.report.control, job.candidate.finetune) == (None, [])


def labelled(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    return measurements(rows, seed) | {"target": np.random.default_rng(seed).integers(0, 2, rows)}


def unlabelled(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {name: values for name, values in measurements(rows, seed).items() if name != "target"}


TASKS: list[tuple[str, Callable[[], Network], Callable[[int, int], Arrays], str | None]] = [
    ("classification", sum_network, labelled, "top1"),
    ("language-modeling", language_model, sentences, "perplexity"),
    ("regression", sum_network, measurements, "rmse"),
    ("none", sum_network, unlabelled, None),
]


@pytest.mark.slow
@pytest.mark.parametrize("roles", [("train",), ("test",), ("train", "test")])
@pytest.mark.parametrize(("task", "network", "data", "metric"), TASKS)
def test_every_task_is_measured_with_whatever_data_there_is(
    task: str,
    network: Callable[[], Network],
    data: Callable[[int, int], Arrays],
    metric: str | None,
    roles: tuple[str, ...],
    tmp_path: Path,
) -> None:
    arrays = {role: data(30, seed) for seed, role in enumerate(roles)}
    job = run_job(
        tmp_path, network(), arrays.get("train"), arrays.get("test"), task=task, target={"keep": 0.8}
    )
    found = job.candidate.metric
    assert (found and found.name) == metric
    assert bool(job.candidate.finetune) == ("train" in roles)
    assert (job.report.control is not None) == ("train" in roles and metric is not None)
    assert job.is_finite()


def _refusal(workspace: Path, network: Network, **job: object) -> tuple[str, str | None]:
    with pytest.raises(EngineError) as raised:
        run_job(workspace, network, **job)  # type: ignore[arg-type]
    assert raised.value.hint
    return raised.value.code, raised.value.field


@pytest.mark.parametrize("role", ["train", "test"])
def test_a_part_whose_labels_are_all_ignored_is_refused_before_any_work(role: str, tmp_path: Path) -> None:
    data = sentences(20)
    data["target"][:] = -100
    data["target"][0, 3] = 7
    refused = _refusal(tmp_path, language_model(), **{role: data}, task="language-modeling")
    assert refused == ("too_few_labels", f"data.{role}")


def test_one_test_row_is_too_few_for_an_interval(tmp_path: Path) -> None:
    refused = _refusal(tmp_path, sum_network(), test=measurements(1), task="regression")
    assert refused == ("too_few_labels", "data.test")


def test_rows_that_the_network_cannot_compute_are_refused_before_any_work(tmp_path: Path) -> None:
    data = sentences(20)
    data["ids"][0, 0] = VOCABULARY
    refused = _refusal(tmp_path, language_model(), test=data, task="language-modeling")
    assert refused == ("network_fails", "data.test")
