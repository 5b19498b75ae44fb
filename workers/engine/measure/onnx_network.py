"""An `.onnx` file in the place of a network: called alike, on tensors in the order of its inputs."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from workers.engine.measure.onnx_session import open_session


def load(model: Path, threads: int) -> Callable[..., list[Tensor]]:
    """Open it in ONNX Runtime on the CPU. Raises whatever ONNX Runtime raises, now and when it is called."""
    session = open_session(model, threads)
    names = [spec.name for spec in session.get_inputs()]

    def call(*inputs: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return call
