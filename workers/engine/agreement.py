"""What the gradients of batches agree about: how fast to train, and how much labels still have to teach."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

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
    return FASTEST * max(_LEAST, _within(agreed(gradients).share))


def reliability(gradients: Gradients, batches: int) -> float:
    """How much of the squared mean gradient of so many batches is not noise: |G|² / (|G|² + S / batches), the
    factor by which an estimate with that noise is best shrunk (James and Stein 1961). In 0 … 1. What may be
    chance, within a standard error, does not count: many batches would make much of it."""
    found = agreed(gradients)
    share = _within(found.share - found.error)
    return share / (share + (1.0 - share) / max(1, batches))


class Agreed(NamedTuple):
    """An estimate of |G|² / (|G|² + S), and its standard error."""

    share: float
    error: float


def agreed(gradients: Gradients) -> Agreed:
    """How much of a batch's squared gradient others agree with: with K batches the mean product of two over
    their mean square, Σₖ gₖ · tₖ / (K (K − 1) / 2) over Σ |gₖ|² / K, where tₖ is the sum of those before gₖ;
    without bias above and below. Beyond what the mean product explains, (k − 1) times it, the gₖ · tₖ are
    noise independent of what went before: their squares add up to the variance of the sum. Fewer than two
    batches, or gradients of zero, agree."""
    total: list[Tensor] = []
    products: list[float] = []
    squares = 0.0
    for gradient in gradients:
        squares += _product(gradient, gradient)
        products += [_product(gradient, total)] if total else []
        total = [sum_ + part for sum_, part in zip(total, gradient, strict=True)] if total else [*gradient]
    if not products or not squares > 0.0:
        return Agreed(1.0, 0.0)
    pairs = len(products) * (len(products) + 1) / 2
    mean, square = sum(products) / pairs, squares / (len(products) + 1)
    noise = math.hypot(*(product - count * mean for count, product in enumerate(products, 1)))
    return Agreed(mean / square, noise / pairs / square)


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))


def _product(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(some, others, strict=True))
