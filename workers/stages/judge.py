"""Judging a network on examples: the task's metric, between the contract's words and the engine's."""

from typing import get_args

from torch import Tensor

from app.contract.report import Metric
from app.contract.spec import Task
from workers.engine.data import Examples
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import OutputKind
from workers.engine.measure import quality

_BATCH = 256


def outputs(network: Network, examples: Examples, device: str = "cpu") -> Tensor:
    """The network's first output for every example."""
    arrays = {spec.name: array for spec, array in zip(network.inputs, examples.inputs, strict=True)}
    return quality.predict(network, arrays, _BATCH, device)


def metric(predicted: Tensor, examples: Examples, task: Task, kind: OutputKind) -> Metric | None:
    """The task's metric; None where there is no task, or nothing to compare with."""
    if task is Task.NONE or examples.target is None:
        return None
    name = next(literal for literal in get_args(quality.Task) if literal == task.value)
    measured = quality.evaluate(predicted, _tensor(examples), name, kind)
    return Metric(
        name=measured.name, value=measured.value, n=measured.n, ci95=measured.ci95, also=measured.also
    )


def _tensor(examples: Examples) -> Tensor:
    [(_, target)] = examples.batches(len(examples))
    if target is None:
        raise ValueError("examples without targets have no metric")
    return target
