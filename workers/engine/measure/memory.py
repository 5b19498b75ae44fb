"""The memory that inference takes, measured in a process that holds nothing else. Imports no torch."""

from contextlib import suppress
from pathlib import Path

from workers.engine import clean_process

_RUNS = 5


def peak_memory(model: Path, inputs: Path, threads: int, timeout: float = 600.0) -> int:
    """Bytes that loading an `.onnx` file and running it on ONNX Runtime adds to a process, at the peak.

    `inputs` is an `.npz` with one array for each input, in order: a batch of one. Weights, activations and
    what the runtime prepares are included; the runtime's own code is not.
    Raises `ProcessFailed` where the model cannot be run.
    """
    arguments = {"model": str(model), "inputs": str(inputs), "threads": threads}
    return int(clean_process.run(probe, arguments, timeout))


def probe(model: str, inputs: str, threads: int) -> int:
    """The measurement itself; means something in a clean process only."""
    import numpy as np  # noqa: PLC0415  # counted as there before the model, hence imported here

    from workers.engine.measure.onnx_session import open_session  # noqa: PLC0415

    with np.load(inputs, allow_pickle=False) as arrays:
        values = [arrays[name] for name in arrays.files]
    _forget_peak()
    before = _status_bytes("VmRSS")
    session = open_session(Path(model), threads)
    feed = {spec.name: value for spec, value in zip(session.get_inputs(), values, strict=True)}
    for _ in range(_RUNS):
        session.run(None, feed)
    return _status_bytes("VmHWM") - before


def _forget_peak() -> None:
    """Start the high-water mark anew: imports may have been higher than what a small model reaches."""
    with suppress(OSError):  # a sandbox may forbid it; the imports' peak is then the least that is reported
        Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(key: str) -> int:
    """A line of this process's status, such as its resident set (VmRSS) or the peak of it (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{key}:"))
    return int(kibibytes) * 1024
