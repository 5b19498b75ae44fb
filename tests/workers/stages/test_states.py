"""Networks that are given their states, layers first, and a number that all rows share, as streams are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import BATCH, seeded
from tests.workers.stages.jobs import Finished, run_job
from workers.engine.graph.network import Input, trace
from workers.stages.inspect import describe

ROWS = 64
STATES = (2, BATCH, 16)


class Stream(nn.Module):
    """A step of a recurrent network, and its states for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(32, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, states: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        sequence, states = self.rnn(x * gain, states)
        return self.head(sequence[:, -1]), states


def stream(batch: Any = BATCH) -> Any:
    seeded()
    states = tuple(batch if axis is BATCH else axis for axis in STATES)
    shapes = {"x": (batch, 5, 32), "states": states, "gain": ()}
    inputs = [Input(name, torch.float32, shape) for name, shape in shapes.items()]
    return trace(Stream().eval(), inputs)


def arrays(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Rows first, whatever the network has first; the targets are what it says."""
    random = np.random.default_rng(seed)
    x, states = random.standard_normal((ROWS, 5, 32)), random.standard_normal((ROWS, 2, 16))
    given = {"x": x, "states": states, "gain": np.full(ROWS, 2.0)}
    named = {name: values.astype(np.float32) for name, values in given.items()}
    tensors = [torch.from_numpy(named[name]) for name in ("x", "states")]
    with torch.no_grad():
        scores, _ = stream()(tensors[0], tensors[1].movedim(0, 1).contiguous(), torch.tensor(2.0))
    return {**named, "target": scores.argmax(1).numpy()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_job(
        tmp_path_factory.mktemp("job"),
        stream(),
        arrays(0),
        arrays(1),
        task="classification",
        target={"of": "macs", "keep": 0.7},
        finetune={"epochs": 1, "batch_size": 16, "refine": True},
        outputs=["pt2", "onnx"],
    )


def test_the_original_is_right_on_every_row_and_what_came_of_it_on_most(finished: Finished) -> None:
    original, candidate = finished.report.original.metric, finished.candidate.metric
    assert original is not None
    assert candidate is not None
    assert (original.value, original.n) == (1.0, ROWS)
    assert candidate.value > 0.6
    assert finished.candidate.macs <= 0.7 * finished.report.original.macs


def test_artifacts_are_called_as_the_upload_is_and_agree(finished: Finished) -> None:
    given = arrays(1)
    fed = {
        "x": given["x"],
        "states": np.ascontiguousarray(np.moveaxis(given["states"], 0, 1)),
        "gain": np.array(2.0, np.float32),
    }
    session = ort.InferenceSession(finished.onnx, providers=["CPUExecutionProvider"])
    assert [len(each.shape) for each in session.get_inputs()] == [3, 3, 0]
    scores, states = session.run(None, fed)
    assert states.shape == (2, ROWS, 16)
    assert np.allclose(scores, finished.outputs(*fed.values())[0], atol=1e-4)


def test_a_network_for_one_row_takes_them_one_by_one(tmp_path: Path) -> None:
    finished = run_job(
        tmp_path, stream(batch=1), arrays(0), arrays(1), finetune={"epochs": 0}, task="classification"
    )
    metric = finished.report.original.metric
    assert metric is not None
    assert (metric.value, metric.n) == (1.0, ROWS)


def test_a_summary_says_where_rows_go() -> None:
    summary = describe(stream(), [])
    assert [each.row_axis for each in summary.inputs] == [0, 1, None]
    assert json.loads(summary.model_dump_json())["inputs"][2]["row_axis"] is None
