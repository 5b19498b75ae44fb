"""One step of looking at an upload, in a process that holds nothing else.

    python -m benchmarks.intake_steps hash|admit|read|ready|inspect FILE [SMALL]

SMALL is a file of the same kind, as small as can be, which is looked at first: that imports all there is to
import. Prints the processor's seconds, of that and of the step, and of what they start, as JSON.
"""

import hashlib
import json
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from workers.child import tune

STEPS = ("hash", "admit", "read", "ready", "inspect")
"""Reading and hashing, as the API does; admission; a network or ranges of values; what is done before an
upload is ready; the whole inspection."""


def measured(step: str, path: Path, *small: Path) -> dict[str, float]:
    """Processor seconds of a step on `path`, and before that of what is done on the `small` file."""
    tune(threads=1)
    start = sum(_seconds(_work(step, each)) for each in small)
    return {"start": start, "seconds": _seconds(_work(step, path))}


def _seconds(work: Callable[[], object]) -> float:
    began = _processor_seconds()
    work()
    return _processor_seconds() - began


def _processor_seconds() -> float:
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _work(step: str, path: Path) -> Callable[[], object]:
    """The step, all modules of ours that it takes imported."""
    kind, is_model = path.suffix[1:], path.suffix in (".pt2", ".onnx", ".zip")
    if step == "hash":
        return lambda: _hashed(path)
    if step == "admit":
        return _admission(path)
    from workers.engine.formats import arrays  # noqa: PLC0415
    from workers.stages import inspect  # noqa: PLC0415
    from workers.stages.context import read_model  # noqa: PLC0415

    if step == "read":
        return lambda: read_model(path, kind) if is_model else arrays.inspect(path, kind)
    if not is_model:
        return lambda: inspect.dataset(path, kind)
    return lambda: _until_ready(path, kind) if step == "ready" else inspect.model(path, kind)


class _Ready(Exception):
    """The upload is ready; what is still to be found out is not waited for."""


def _until_ready(path: Path, kind: str) -> None:
    from workers.stages import inspect  # noqa: PLC0415

    def described(_: object) -> None:
        raise _Ready

    with suppress(_Ready):
        inspect.model(path, kind, described)


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _admission(path: Path) -> Callable[[], object]:
    from workers.engine.admit import hf_folder, onnx, pt2, safetensors  # noqa: PLC0415

    if path.suffix == ".onnx":
        return lambda: onnx.admit(path)
    admit: Any = {".pt2": pt2.admit, ".zip": hf_folder.admit, ".safetensors": safetensors.admit}[path.suffix]

    def admitted() -> None:
        with admit(path):
            pass

    return admitted


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], *map(Path, sys.argv[2:]))))
