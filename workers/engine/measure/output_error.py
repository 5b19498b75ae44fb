"""What a layer's decomposition does to the layer's own output, on data that did not choose it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from workers.engine.data import Batch
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.layers.substitute import Substitute


def output_errors(
    network: Network,
    layers: Sequence[Layer],
    substitutes: Mapping[str, Substitute],
    batches: Iterable[Batch],
) -> dict[str, float]:
    """‖y' − y‖ / ‖y‖ of every layer that has a substitute, by name: y as the original computes it on
    `batches`, y' from the same inputs with the substitute's tensors. Zero where y is zero."""
    found = {name: torch.zeros(2, dtype=torch.float64) for name in substitutes}
    sites: dict[str, list[str]] = {}
    for layer in layers:
        if layer.name in substitutes:
            for site in layer.sites:
                sites.setdefault(site.node.name, []).append(layer.name)
    with torch.no_grad():
        for inputs, _ in batches:
            _Comparer(network, sites, substitutes, found).run(*inputs)
    return {name: float((error / norm).sqrt()) if norm > 0 else 0.0 for name, (error, norm) in found.items()}


class _Comparer(Interpreter):
    """Runs a network, and every layer a second time with its substitute."""

    def __init__(
        self,
        network: Network,
        sites: Mapping[str, list[str]],
        substitutes: Mapping[str, Substitute],
        found: Mapping[str, Tensor],
    ) -> None:
        super().__init__(network.module, garbage_collect_values=True)
        self._sites = sites
        self._substitutes = substitutes
        self._found = found

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        for name in self._sites.get(n.name, ()):
            args, kwargs = map_arg((n.args, dict(n.kwargs)), self._reader(self._substitutes[name]))
            approximation = n.target(*args, **kwargs)  # type: ignore[operator]
            self._found[name].add_(_squares(value, approximation))
        return value

    def _reader(self, substitute: Substitute) -> Any:
        def read(node: Node) -> Any:
            replaced = substitute.get(str(node.target)) if node.op == "get_attr" else None
            return self.env[node] if replaced is None else replaced

        return read


def _squares(value: Any, approximation: Any) -> Tensor:
    """Squared error and squared norm of a call's first output."""
    y, other = (pytree.tree_leaves(each)[0] for each in (value, approximation))
    exact = torch.promote_types(y.dtype, torch.float32)  # half precision may not hold the norm
    norms = [torch.linalg.vector_norm(each, dtype=exact) for each in (other - y, y)]
    return torch.stack(norms).double().square()
