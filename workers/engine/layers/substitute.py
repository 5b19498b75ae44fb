"""The dense tensors that stand for rewritten layers: what their factors are equal to, or come to later."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.base import Form, Layer, Rewritten

Substitute = Mapping[str, Tensor]  # by path
Rank = tuple[int, ...]


def merged(network: Network, layers: Iterable[tuple[Layer, str, Rank]], factorised: Network) -> Network:
    """A copy of a dense `network` that computes what a factorised one does, whatever became of its factors.

    `layers` are the network's own, each with the method and rank that it has taken there. What both networks
    hold, biases and normalisations above all, is the factorised one's.
    """
    whole = stored = _paths(factorised)
    for layer, method, rank in layers:
        whole = {**whole, **layer.methods[method].merge(rank, stored)}
    copy = network.copy()
    for path, tensor in _paths(copy).items():
        if path in whole:
            tensor.copy_(whole[path])
    return copy


def _paths(network: Network) -> dict[str, Tensor]:
    """Every tensor by every path: of tied ones two networks need not use the same."""
    return {path: tensor.detach() for path, tensor in surgery.every_tensor(network.module).items()}


def substitute(layer: Layer, form: Form) -> tuple[Rewritten, Substitute]:
    """Rewrite a layer, in place, and say which dense tensors at which paths would have had the same
    effect."""
    biases = {str(site.bias.target): site for site in layer.sites if site.bias is not None}
    rewritten = layer.methods[form.method].rewrite(form.rank)
    tensors = dict(layer.substitutes(rewritten.weight))
    for path, site in biases.items():
        tensors[path] = surgery.stored(site.module, path).detach()
    return rewritten, tensors
