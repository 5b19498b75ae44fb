"""The dense tensors that stand for a rewritten layer: what its factors are equal to."""

from collections.abc import Mapping

from torch import Tensor

from workers.engine.graph import surgery
from workers.engine.layers.base import Form, Layer, Rewritten

Substitute = Mapping[str, Tensor]  # by path


def substitute(layer: Layer, form: Form) -> tuple[Rewritten, Substitute]:
    """Rewrite a layer, in place, and say which dense tensors at which paths would have had the same
    effect."""
    biases = {str(site.bias.target): site for site in layer.sites if site.bias is not None}
    rewritten = layer.methods[form.method].rewrite(form.rank)
    tensors = dict(layer.substitutes(rewritten.weight))
    for path, site in biases.items():
        tensors[path] = surgery.stored(site.module, path).detach()
    return rewritten, tensors
