"""Batch normalisation after a decomposition: its statistics follow what the decomposition changed."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from workers.engine.data import Batch
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, call_nodes

_BATCH_NORM = torch.ops.aten.batch_norm.default
_MEAN, _VARIANCE = 3, 4  # positions of the arguments
_LEAST_VARIANCE = 1e-5  # of the original's mean: channels that hardly vary keep their variance

Statistics = tuple[Tensor, Tensor]
Seen = list[Statistics]
"""Of every BatchNorm in order, for one batch."""


def watch(original: Network, batches: Iterable[Batch]) -> list[Seen]:
    """What every BatchNorm is given, for each batch: once for all networks made of the original."""
    if not _norms(original):
        return []
    seen = []
    with torch.no_grad():
        for inputs, _ in batches:
            watching = _Watcher(original)
            watching.run(*inputs)
            seen.append(watching.statistics)
    return seen


def correct_batch_norm(network: Network, batches: Iterable[Batch], seen: Sequence[Seen]) -> bool:
    """Shift every BatchNorm's running mean, and scale its variance, by what came of the decomposition, in
    place.

    Both networks see the same batches (`seen` is what `watch` found): the mean moves by the difference of the
    means at each BatchNorm's input, the variance by the ratio. What the batches do not say about the training
    data cancels, so that a few rows serve where statistics taken anew would need many. No labels, no
    gradients.

    Returns:
        whether there was anything to correct.
    """
    if not _norms(network):
        return False
    corrected: list[Seen] = []
    with torch.no_grad():
        for (inputs, _), before in zip(batches, seen, strict=True):
            following = _Follower(network, before)
            following.run(*inputs)
            corrected.append(following.statistics)
    if not corrected:
        return False
    for node, found in zip(_norms(network), zip(*corrected, strict=True), strict=True):
        for place, values in zip((_MEAN, _VARIANCE), zip(*found, strict=True), strict=True):
            running = surgery.tensor_of(network.module, _node(node.args[place]))
            running.copy_(torch.stack(values).mean(0))
    return True


def _norms(network: Network) -> list[Node]:
    return [node for node in call_nodes(network.module) if _has_statistics(node)]


def _statistics(x: Tensor) -> Statistics:
    """Mean and variance by channel. By a norm, which is many times as fast as torch's own variance."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes, keepdim=True)
    distance = torch.linalg.vector_norm(x - mean, dim=axes)
    return mean.flatten(), distance.square() * x.shape[1] / x.numel()


def _node(argument: Any) -> Node:
    if not isinstance(argument, Node):
        raise TypeError(f"{argument} is not a node")
    return argument


def _has_statistics(node: Node) -> bool:
    return node.target is _BATCH_NORM and node.args[_MEAN] is not None


class _Watcher(Interpreter):
    """Keeps the mean and variance, by channel, of what every BatchNorm is given."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module, garbage_collect_values=True)
        self.statistics: list[Statistics] = []

    def run_node(self, n: Node) -> Any:
        if not _has_statistics(n):
            return super().run_node(n)
        arguments: list[Any] = list(self.fetch_args_kwargs_from_env(n)[0])
        x: Tensor = arguments[0]
        self.normalise(arguments, _statistics(x))
        return _BATCH_NORM(*arguments)

    def normalise(self, arguments: list[Any], seen: Statistics) -> None:
        """What to do with the statistics of one BatchNorm's input before it is run."""
        self.statistics.append(seen)


class _Follower(_Watcher):
    """Corrects every BatchNorm before it is run, so that those behind it see corrected inputs."""

    def __init__(self, network: Network, original: list[Statistics]) -> None:
        super().__init__(network)
        self._original = original

    def normalise(self, arguments: list[Any], seen: Statistics) -> None:
        (mean, variance), (mean_before, variance_before) = seen, self._original[len(self.statistics)]
        least = _LEAST_VARIANCE * variance_before.mean() + torch.finfo(mean.dtype).tiny
        scale = (variance + least) / (variance_before + least)
        arguments[_MEAN] = mean - (mean_before - arguments[_MEAN]) * scale.sqrt()
        arguments[_VARIANCE] = arguments[_VARIANCE] * scale
        self.statistics.append((arguments[_MEAN], arguments[_VARIANCE]))
