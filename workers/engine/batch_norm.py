"""Batch normalisation after a decomposition: statistics taken anew. No labels, no gradients."""

from collections.abc import Iterable

import torch

from workers.engine.data import Batch
from workers.engine.graph.network import Network, call_nodes
from workers.engine.graph.surgery import set_training

_BATCH_NORM = torch.ops.aten.batch_norm.default
_MOMENTUM = 6  # position of the argument


def reestimate_batch_norm(network: Network, batches: Iterable[Batch]) -> bool:
    """Set every BatchNorm's running mean and variance to the average over `batches`, in place.

    A decomposed layer shifts the statistics of everything behind it; this is the cheapest repair there is.
    Momentum 1 / i in the i-th batch makes the running value the plain average.

    Returns:
        whether the network has any BatchNorm.
    """
    norms = [node for node in call_nodes(network.module) if node.target is _BATCH_NORM]
    if not norms:
        return False
    momenta = [node.args[_MOMENTUM] for node in norms]
    set_training(network.module, True)
    with torch.no_grad():
        for count, (inputs, _) in enumerate(batches, start=1):
            for node in norms:
                node.update_arg(_MOMENTUM, 1.0 / count)
            network.module.recompile()
            network(*inputs)
    for node, momentum in zip(norms, momenta, strict=True):
        node.update_arg(_MOMENTUM, momentum)
    set_training(network.module, False)
    return True
