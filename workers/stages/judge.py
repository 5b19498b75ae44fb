"""Judging a network on examples: the task's metric, between the contract's words and the engine's."""

from collections.abc import Callable
from typing import Any, get_args

from torch import Tensor
from torch.utils import _pytree as pytree

from app.contract.report import Metric
from workers.engine.data import Examples
from workers.engine.graph.network import Network
from workers.engine.graph.outputs import outputs_are
from workers.engine.measure import quality
from workers.engine.padding import real_positions
from workers.stages.context import Context

_BATCH = 256


def outputs(
    network: Network, examples: Examples, device: str = "cpu", form: Callable[..., object] | None = None
) -> Tensor:
    """The network's first output for every example, or that of another form of it."""
    arrays = {spec.name: array for spec, array in zip(network.inputs, examples.inputs, strict=True)}
    return quality.predict(network, arrays, _BATCH, device, form)


def on_cpu(network: Network, device: str) -> Callable[..., Any]:
    """A network on a device, for inputs and outputs that are not there."""

    def run(*inputs: Tensor) -> Any:
        outputs = network(*(tensor.to(device) for tensor in inputs))
        return pytree.tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, outputs)

    return run


def metric(context: Context, predicted: Tensor, examples: Examples) -> Metric | None:
    """The job's metric of predictions; None where there is no task, or nothing to compare with."""
    task = _task(context)
    if task is None or examples.target is None:
        return None
    kind, positions = outputs_are(context.original), real_positions(context.original.inputs, examples.inputs)
    measured = quality.evaluate(predicted, _tensor(examples), task, kind, positions)
    return Metric(
        name=measured.name, value=measured.value, n=measured.n, ci95=measured.ci95, also=measured.also
    )


def judgeable(context: Context, examples: Examples) -> bool:
    """Whether the job has a metric, and the examples enough targets that count."""
    task = _task(context)
    if task is None or examples.target is None:
        return False
    positions = real_positions(context.original.inputs, examples.inputs)
    return quality.judgeable(_tensor(examples), task, positions)


def _task(context: Context) -> quality.Task | None:
    return next((task for task in get_args(quality.Task) if task == context.task.value), None)


def _tensor(examples: Examples) -> Tensor:
    target = examples.targets()
    if target is None:
        raise ValueError("examples without targets have no metric")
    return target
