"""What the gradients of batches agree about: how fast to train, and how much labels still have to teach."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from workers.engine.data import Batch
from workers.engine.graph.network import Network
from workers.engine.graph.surgery import set_training

BATCHES = 16
"""Of how many the gradients are compared: enough to tell a fiftieth from nothing."""
FASTEST = 1e-3
"""The rate for gradients that agree entirely: Adam's own."""
_LEAST = 0.02  # of the fastest rate: chance may have it that nothing agrees

Gradients = Iterable[Sequence[Tensor]]
"""Of batches, each the tensors of one."""


def gradients(
    network: Network, batches: Iterable[Batch], value: Callable[..., Tensor]
) -> Iterator[tuple[Tensor, ...]]:
    """Of the first batches, by the loss that `value` makes of one's inputs and targets: as in training, but
    statistics of BatchNorm stay as they are. The network is left training."""
    set_training(network.module, True, batch_norm=False)
    parameters = list(network.module.parameters())
    for inputs, target in islice(batches, BATCHES):
        yield torch.autograd.grad(
            value(inputs, target), parameters, allow_unused=True, materialize_grads=True
        )


def learning_rate(gradients: Gradients) -> float:
    """The learning rate for batches with these gradients.

    Where the gradient of a batch of B rows is the true one G and noise of variance S, steps that are best on
    average are |G|² / (|G|² + S) of those without noise (McCandlish et al. 2018, eq. 2.6): the share of a
    batch's squared gradient that others agree with. One batch tells nothing, and is trusted.
    """
    return FASTEST * max(_LEAST, _agreed(gradients))


def reliability(gradients: Gradients, batches: int) -> float:
    """How much of the squared mean gradient of so many batches is not noise: |G|² / (|G|² + S / batches), the
    factor by which an estimate with that noise is best shrunk (James and Stein 1961). In 0 … 1."""
    agreed = _agreed(gradients)
    return agreed / (agreed + (1.0 - agreed) / max(1, batches))


def _agreed(gradients: Gradients) -> float:
    """|G|² / (|G|² + S). With K batches: the mean product of two gradients over their mean square,
    (|Σ gₖ|² − Σ |gₖ|²) / ((K − 1) Σ |gₖ|²), without bias above and below; within 0 … 1."""
    total: list[Tensor] = []
    squares, count = 0.0, 0
    for gradient in gradients:
        total = [sum_ + part for sum_, part in zip(total, gradient, strict=True)] if total else [*gradient]
        squares += _square(gradient)
        count += 1
    if count < 2 or not squares > 0.0:
        return 1.0
    return min(1.0, max(0.0, (_square(total) - squares) / ((count - 1) * squares)))


def _square(tensors: Sequence[Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors)
