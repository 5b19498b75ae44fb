"""How fast to train: as fast as the gradients of batches agree about where to go."""

from collections.abc import Iterable, Sequence

from torch import Tensor

BATCHES = 16
"""Of how many the gradients are compared: enough to tell a fiftieth from nothing."""
FASTEST = 1e-3
"""The rate for gradients that agree entirely: Adam's own."""
_LEAST = 0.02  # of the fastest rate: chance may have it that nothing agrees


def learning_rate(gradients: Iterable[Sequence[Tensor]]) -> float:
    """The learning rate for batches with these gradients, each the tensors of one batch.

    Where the gradient of a batch of B rows is the true one G and noise of variance S, steps that are best on
    average are 1 / (1 + S / |G|²) of those without noise (McCandlish et al. 2018, eq. 2.6). With K batches
    that is the mean product of two of them over their mean square,
    (|Σ gₖ|² − Σ |gₖ|²) / ((K − 1) Σ |gₖ|²), without bias above and below. One batch tells nothing, and is
    trusted.
    """
    total: list[Tensor] = []
    squares, count = 0.0, 0
    for gradient in gradients:
        total = [sum_ + part for sum_, part in zip(total, gradient, strict=True)] if total else [*gradient]
        squares += _square(gradient)
        count += 1
    if count < 2 or not squares > 0.0:
        return FASTEST
    agreed = (_square(total) - squares) / ((count - 1) * squares)
    return FASTEST * min(1.0, max(_LEAST, agreed))


def _square(tensors: Sequence[Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors)
