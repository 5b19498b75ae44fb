"""Where numbers were taken."""

import platform
from pathlib import Path

import onnxruntime
import torch

from workers.engine.measure.environment import describe
from workers.engine.measure.processor import cpu_name


def test_versions_processor_and_threads_are_told() -> None:
    environment = describe(threads=3)
    assert environment.torch == torch.__version__
    assert environment.onnxruntime == onnxruntime.__version__
    assert environment.threads == 3
    assert environment.cpu


def test_the_processor_has_its_model_name_or_at_least_its_architecture(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.0: fast\n\nmodel name\t: Other\n")
    assert cpu_name(cpuinfo) == "Some CPU @ 2.0: fast"
    cpuinfo.write_text("processor : 0\n")
    assert cpu_name(cpuinfo) == platform.machine()
    assert cpu_name(tmp_path / "missing") == platform.machine()
