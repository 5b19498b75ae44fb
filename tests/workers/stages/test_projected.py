"""An LSTM that projects its hidden states: torch runs it, ONNX has no such thing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import BATCH, seeded
from tests.workers.stages.jobs import run_job
from workers.engine.errors import EngineError
from workers.engine.graph.network import Input, Network, trace
from workers.messages import Noticed


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, proj_size=4)
        self.head = nn.Sequential(nn.Linear(4, 96), nn.ReLU(), nn.Linear(96, 96))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(x)[0][:, -1])
        return out


def projected() -> Network:
    seeded()
    return trace(Projected().eval(), [Input("x", torch.float32, (BATCH, 6, 8))])


def test_a_pt2_is_made_and_the_lack_of_onnx_said_once(tmp_path: Path) -> None:
    finished = run_job(tmp_path, projected(), target={"keep": 0.9}, finetune={"epochs": 0})
    told = [m.notice.detail for m in finished.messages if isinstance(m, Noticed)]
    [detail] = [detail for detail in told if "ONNX" in detail]
    assert "lstm" in detail
    assert "proj_size" in detail
    assert finished.candidate.latency.keys() == {"torch"}
    assert finished.candidate.macs <= 0.9 * finished.report.original.macs
    assert finished.outputs(torch.zeros(2, 6, 8).numpy()).shape == (2, 96)


def test_asking_for_onnx_is_a_problem_that_names_the_layer_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        run_job(tmp_path, projected(), outputs=["pt2", "onnx"])
    error = caught.value
    assert (error.code, error.layer, error.field) == ("onnx_unsupported", "lstm", "outputs")
    assert '["pt2"]' in (error.hint or "")
    assert not (tmp_path / "stages" / "plan").exists()
