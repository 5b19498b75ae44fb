"""Running a whole job on networks and arrays of a test's own."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.contract.report import Candidate, Report
from app.contract.spec import JobSpec
from benchmarks.jobs import timed_in_passing
from workers.engine.formats import pt2
from workers.engine.graph.network import Network
from workers.messages import Message, Noticed, Order
from workers.stages import pipeline

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Finished:
    """A job that succeeded."""

    workspace: Path
    messages: list[Message]

    @property
    def report(self) -> Report:
        """What it reported."""
        return Report.model_validate_json((self.workspace / "result.json").read_bytes())

    @property
    def candidate(self) -> Candidate:
        """Its only candidate."""
        [candidate] = self.report.candidates
        return candidate

    @property
    def notices(self) -> set[tuple[str, str | None]]:
        """What it told the user on the way: codes and layers."""
        return {(m.notice.code, m.notice.layer) for m in self.messages if isinstance(m, Noticed)}

    @property
    def onnx(self) -> Path:
        """The candidate in ONNX."""
        return self.workspace / "artifacts" / "candidate-0.onnx"

    def program(self) -> torch.export.ExportedProgram:
        """The candidate as stock torch opens it."""
        return torch.export.load(self.workspace / "artifacts" / "candidate-0.pt2")

    def outputs(self, *inputs: NDArray[Any]) -> torch.Tensor:
        """What the candidate makes of inputs."""
        with torch.inference_mode():
            outputs: torch.Tensor = self.program().module()(*map(torch.from_numpy, inputs))
        return outputs

    def is_finite(self) -> bool:
        """Whether every tensor of the candidate holds numbers only."""
        return all(bool(tensor.isfinite().all()) for tensor in self.program().state_dict.values())


def run_job(
    workspace: Path,
    model: Network | Path,
    train: Arrays | None = None,
    test: Arrays | None = None,
    files: Mapping[str, Path] | None = None,
    **spec: Any,
) -> Finished:
    """Run a job as a worker's child would, on a network or its file, on arrays or on `files` by role, whose
    endings tell their formats; raises what the pipeline raises.

    Time and memory are measured in passing only: they are other tests' business, and take seconds.
    """
    (workspace / "inputs").mkdir(parents=True)
    if isinstance(model, Path):
        shutil.copyfile(model, workspace / "inputs" / "model")
    else:
        pt2.write(model, workspace / "inputs" / "model")
    data = {role: arrays for role, arrays in (("train", train), ("test", test)) if arrays is not None}
    for role, arrays in data.items():
        with (workspace / "inputs" / role).open("wb") as file:
            np.savez(file, **dict[str, Any](arrays))
    for role, path in (files or {}).items():
        (workspace / "inputs" / role).symlink_to(path)
    formats = dict.fromkeys(data, "npz") | {role: path.suffix[1:] for role, path in (files or {}).items()}
    wanted = {"finetune": {"epochs": 1, "batch_size": 16}, "outputs": ["pt2"], "device": "cpu", **spec}
    order = Order(
        job_id="job_" + "0" * 32,
        kind="compress",
        attempt=1,
        spec=JobSpec.model_validate({"model": "mdl_" + "0" * 32, **wanted}),
        formats={"model": model.suffix[1:] if isinstance(model, Path) else "pt2", **formats},
    )
    messages: list[Message] = []
    with timed_in_passing():
        pipeline.run(order, workspace, messages.append)
    return Finished(workspace, messages)
