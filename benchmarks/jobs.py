"""Running whole jobs as a worker's child would, without a service around them."""

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from app.contract.report import Report
from app.contract.spec import JobSpec
from app.contract.status import Stage
from workers.child import NEW_OBJECTS
from workers.engine.measure import memory
from workers.messages import Message, Order
from workers.stages import measure, pipeline, resources

WORK = Path(__file__).parents[1] / "var" / "benchmarks"
"""Where working files and what was measured so far are kept."""


def kept(path: Path, measure: Callable[[], Any]) -> Any:
    """What `measure` finds, as JSON; what an earlier run left at `path` is taken for it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure()))
    return json.loads(path.read_text())


def job_order(spec: Mapping[str, Any], inputs: Mapping[str, Path], workspace: Path) -> Order:
    """The order for a job on files by role ("model", "train", "test"), which become the workspace's inputs.

    Stages that the workspace has checkpoints of are done.
    """
    folder = workspace / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    for role, path in inputs.items():
        (folder / role).unlink(missing_ok=True)
        (folder / role).symlink_to(path.resolve())
    return Order(
        job_id="job_" + "0" * 32,
        kind="compress",
        attempt=1,
        spec=JobSpec.model_validate({"model": "mdl_" + "0" * 32, "device": "cpu", **spec}),
        formats={role: path.suffix.removeprefix(".") for role, path in inputs.items()},
        done=[stage for stage in Stage if (workspace / "stages" / stage / "seconds").exists()],
        threads=torch.get_num_threads(),
    )


def run_job(order: Order, workspace: Path) -> Report:
    """Run it to its report; raises what the pipeline raises."""
    run_stages(order, workspace, ignore)
    return Report.model_validate_json((workspace / "result.json").read_bytes())


def run_stages(order: Order, workspace: Path, emit: Callable[[Message], None]) -> None:
    """Run the stages that are not done, with cycles looked for as seldom as in a job's process."""
    before = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS)
    try:
        pipeline.run(order, workspace, emit)
    finally:
        gc.set_threshold(*before)


@contextmanager
def timed_in_passing() -> Iterator[None]:
    """While this lasts, jobs look at times and memory in passing only."""
    with ExitStack() as patches:
        patches.enter_context(patch.object(measure, "_TIMING_SECONDS", 0.0))
        patches.enter_context(patch.object(resources, "_SECONDS", 0.0))
        patches.enter_context(patch.object(memory, "peak_memory", lambda *_: None))
        yield


def ignore(message: Message) -> None:
    """Nobody listens to the progress of a benchmark."""
