"""How much the whole network minds an error in one of its weights, measured one weight at a time."""

from collections.abc import Callable, Mapping, Sequence

import torch

from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.base import Form, Layer
from workers.engine.layers.substitute import Substitute, substitute
from workers.engine.ranks.selection import Rules

_TRIED = 0.5  # of a layer's parameters: where most budgets will want it
_LEAST_ERROR = 1e-9


def sensitivities(
    network: Network,
    layers: Sequence[Layer],
    rules: Rules,
    divergence: Callable[[Network], float],
) -> dict[str, float]:
    """Divergence of the whole network per unit of a layer's error, by layer name.

    Each layer alone takes a form of half its size and the network's divergence from the original is measured;
    a form's predicted divergence is then its error times the value returned, KL(r₀) · T(r) / T(r₀). Layers
    that have no such form are left out.

    Args:
        network: read only.
        layers: those of a copy of the network that is rewritten here and of no use afterwards.
        rules: which methods each layer may take.
        divergence: of a network from the original, on rows that served for nothing else.
    """
    tried = {layer.name: form for layer in layers if (form := _tried(layer, rules))}
    substitutes = {
        layer.name: substitute(layer, tried[layer.name])[1] for layer in layers if layer.name in tried
    }
    frozen = network.copy()
    return {
        name: _with(frozen, substitutes[name], divergence) / max(form.error, _LEAST_ERROR)
        for name, form in tried.items()
    }


def _tried(layer: Layer, rules: Rules) -> Form | None:
    """The form of about half the size that loses least, on the coarsest grid that has any."""
    for step in (8, 4, 2, 1):
        forms = [form for each in rules.allowed(layer) for form in each.forms(step)]
        if forms:
            half = _TRIED * layer.parameters
            nearest = min(abs(form.parameters - half) for form in forms)
            near = [form for form in forms if abs(form.parameters - half) <= nearest + 0.05 * half]
            return min(near, key=lambda form: form.error)
    return None


def _with(frozen: Network, tensors: Substitute, divergence: Callable[[Network], float]) -> float:
    """The divergence with some tensors of the network replaced for a moment."""
    held = _swap(frozen, tensors)
    try:
        return max(0.0, divergence(frozen))
    finally:
        _swap(frozen, held)


def _swap(network: Network, tensors: Mapping[str, torch.Tensor]) -> Substitute:
    """Put values in and return those that were there; tied weights may have several paths."""
    stored = {path: surgery.stored(network.module, path) for path in tensors}
    before = {path: tensor.detach().clone() for path, tensor in stored.items()}
    for path, tensor in tensors.items():
        stored[path].data.copy_(tensor)
    return before
