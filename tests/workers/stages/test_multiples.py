"""A network that takes pictures whose sides are multiples of a number."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from tests.workers.engine.formats.zoo import ZOO
from tests.workers.stages.jobs import run_job
from workers.engine.errors import EngineError


def test_artifacts_take_all_the_sizes_that_the_upload_takes(tmp_path: Path) -> None:
    case = ZOO["pyramid"]
    case.save(tmp_path / "model.pt2")
    pictures = {"x": case.draw(40, 4)[0].numpy()}
    finished = run_job(
        tmp_path / "job",
        tmp_path / "model.pt2",
        pictures,
        target={"keep": 0.5},
        finetune={"epochs": 1, "batch_size": 8},
        outputs=["pt2", "onnx"],
    )
    assert finished.candidate.macs <= 0.5 * finished.report.original.macs
    session = ort.InferenceSession(finished.onnx, providers=["CPUExecutionProvider"])
    for sides in ((8, 20), (16, 8), (40, 12)):
        x = np.random.default_rng(0).standard_normal((2, 3, *sides)).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        assert found.shape == (2, 8, *sides)
        assert torch.allclose(torch.from_numpy(found), finished.outputs(x), atol=1e-4)


def test_other_sizes_are_the_users_to_mend(tmp_path: Path) -> None:
    ZOO["pyramid"].save(tmp_path / "model.pt2")
    with pytest.raises(EngineError) as raised:
        run_job(tmp_path / "job", tmp_path / "model.pt2", {"x": np.zeros((20, 3, 18, 20), np.float32)})
    assert (raised.value.code, raised.value.field) == ("network_fails", "data.train")
