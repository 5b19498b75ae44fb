"""Where numbers were taken."""

from dataclasses import dataclass

import onnxruntime
import torch

from workers.engine.measure.processor import cpu_name


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
