"""Where numbers were taken."""

import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch


@dataclass(frozen=True)
class Environment:
    """Versions, the processor's name, and the threads that were computed with."""

    torch: str
    onnxruntime: str
    cpu: str
    threads: int


def describe(threads: int) -> Environment:
    """This machine and this process."""
    return Environment(str(torch.__version__), str(onnxruntime.__version__), cpu_name(), threads)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model name as Linux gives it, or the architecture where it gives none."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in names if name), platform.machine())
