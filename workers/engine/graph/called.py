"""A network with the signature that its user calls it by."""

import inspect
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from workers.engine.graph.network import Network, dynamic_shapes, examples, export, exported
from workers.engine.signature import Signature, filled, only, taken

_HELD = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
"""Where a module keeps its tensors; what else it has of its own are hooks, which check another signature."""


def export_as_called(network: Network) -> ExportedProgram:
    """torch.export of the network, called and giving back as its signature says.

    Parameters and buffers keep their paths. `network` is not changed.
    """
    signature = network.signature
    if signature is None:
        return export(network.module, network.inputs)
    given, shapes = examples(network.inputs), dynamic_shapes(network.inputs)
    return exported(
        _called(network, signature),
        filled(signature.positional, given),
        filled(signature.keyword, given),
        only(signature.arguments, shapes),
    )


def _called(network: Network, signature: Signature) -> nn.Module:
    """The graph with another way in and out, over the same tensors: no graph module, which torch.export would
    go through without asking its forward."""
    module = nn.Module()
    held = network.module.__dict__
    module.__dict__.update({key: held[key] for key in held if key in _HELD or key not in module.__dict__})
    inner, arguments = type(network.module).forward, (signature.positional, signature.keyword)

    def forward(*args: Any, **kwargs: Any) -> Any:
        results = inner(module, *taken(arguments, (args, kwargs)))
        if signature.results is None:
            return results
        return filled(signature.results, results if isinstance(results, tuple | list) else (results,))

    forward.__signature__ = _python_signature(signature)  # type: ignore[attr-defined]
    module.forward = forward
    return module


def _python_signature(signature: Signature) -> inspect.Signature:
    parameter = inspect.Parameter
    positional = [parameter(name, parameter.POSITIONAL_OR_KEYWORD) for name in signature.names]
    keyword = [parameter(name, parameter.KEYWORD_ONLY) for name in signature.keyword]
    return inspect.Signature([*positional, *keyword])
