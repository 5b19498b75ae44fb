"""Editing an ATen graph in place: read arguments, register tensors, replace nodes, drop what is unused."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from workers.engine.graph.scan import PLAIN


def arguments(node: Node) -> dict[str, Any]:
    """An operator call's arguments by their schema names, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    values = dict(zip((argument.name for argument in schema), node.args, strict=False))
    return {a.name: values.get(a.name, node.kwargs.get(a.name, a.default_value)) for a in schema}


def tensor_of(module: GraphModule, node: Node) -> Tensor:
    """The parameter, buffer or constant that a `get_attr` node reads."""
    return stored(module, str(node.target))


def stored(module: GraphModule, path: str) -> Tensor:
    """The tensor at a dotted path."""
    value = attrgetter(path)(module)
    if not isinstance(value, Tensor):
        raise TypeError(f"{path} is not a tensor")
    return value


def _attribute(module: GraphModule, node: Node) -> Any:
    return attrgetter(str(node.target))(module)


def is_weight(module: GraphModule, node: Any) -> bool:
    """Whether a graph argument reads a floating-point parameter."""
    if not (isinstance(node, Node) and node.op == "get_attr"):
        return False
    value = _attribute(module, node)
    return isinstance(value, nn.Parameter) and value.is_floating_point()


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is infinite or not a number.

    A finite sum has finite terms, and takes a tenth of the time and no memory. Only where the sum is not
    finite, which large terms may make it too, is every element asked.
    """
    return bool(tensor.detach().sum().isfinite()) or bool(tensor.isfinite().all())


def store(module: GraphModule, path: str, tensor: Tensor) -> None:
    """Store `tensor` (copied) under a dotted path, for `graph.get_attr` to read: as a trainable parameter, or
    as a buffer where it holds whole numbers."""
    *folders, leaf = path.split(".")
    owner: nn.Module = module
    for folder in folders:
        if not hasattr(owner, folder):
            owner.add_module(folder, nn.Module())
        owner = getattr(owner, folder)
    copied = tensor.detach().clone().contiguous()
    if copied.is_floating_point():
        owner.register_parameter(leaf, nn.Parameter(copied))
    else:
        owner.register_buffer(leaf, copied)


def call(module: GraphModule, target: OpOverload, *args: Any) -> Node:
    """Insert an operator call."""
    return module.graph.call_function(target, args)


def recall(module: GraphModule, node: Node, **changed: Any) -> Node:
    """Insert a call like `node` with some arguments changed."""
    values = {**arguments(node), **changed}
    keywords = {a.name for a in node.target._schema.arguments if a.kwarg_only}  # type: ignore[union-attr]
    positional = tuple(value for name, value in values.items() if name not in keywords)
    return module.graph.call_function(
        node.target,  # type: ignore[arg-type]  # an operator call's target is callable
        positional,
        {name: values[name] for name in keywords},
    )


def update(node: Node, **changed: Any) -> None:
    """Change keyword arguments of a call in place."""
    for name, value in changed.items():
        node.update_kwarg(name, value)


def loosen(node: Node) -> None:
    """Turn the views of a node into reshapes, which copy where the node's strides have come to demand it."""
    for user in node.users:
        if user.target is torch.ops.aten.view.default:
            user.target = torch.ops.aten.reshape.default
        if getattr(user.target, "is_view", False):
            loosen(user)


def replace(module: GraphModule, node: Node, build: Callable[[], Node]) -> None:
    """Put the nodes that `build` inserts in the place of `node`."""
    with module.graph.inserting_before(node):
        new = build()
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def every_tensor(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every path that they have: tied ones have several."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(module.named_buffers(remove_duplicate=False))}


def prune(module: GraphModule) -> None:
    """Drop dead nodes, and the tensors and bodies of loops that no node reads any more, then recompile."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for path in every_tensor(module):
        if path not in used:
            owner, _, leaf = path.rpartition(".")
            delattr(module.get_submodule(owner), leaf)
    for path in [path for path, child in module.named_children() if isinstance(child, GraphModule)]:
        if path not in used:
            delattr(module, path)
    module.recompile()


def place(module: GraphModule, device: str) -> None:
    """Move a graph to a device, in place: its tensors, and the calls that make new ones."""
    module.to(device)
    for graph in [graph for graph in module.modules() if isinstance(graph, GraphModule)]:
        for node in graph.graph.nodes:
            if node.kwargs.get("device") is not None:
                node.update_kwarg("device", torch.device(device))
        graph.recompile()


_TRAINING_ARGUMENT = {
    torch.ops.aten.batch_norm.default: 5,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.lstm.input: 6,
    torch.ops.aten.gru.input: 6,
    torch.ops.aten.rnn_tanh.input: 6,
    torch.ops.aten.rnn_relu.input: 6,
}


def set_training(module: GraphModule, training: bool, *, batch_norm: bool = True) -> None:
    """Flip the operators that behave differently in training; `GraphModule.train()` cannot.

    Scans and conds become plain functions while training: they compute the same, and autograd goes through
    them faster.
    Without `batch_norm`, BatchNorms keep to their running statistics: batches of one row have no variance.
    """
    for node in module.graph.nodes:
        position = _TRAINING_ARGUMENT.get(node.target)
        if position is not None:
            frozen = node.target is torch.ops.aten.batch_norm.default and not batch_norm
            node.update_arg(position, training and not frozen)
        for nested, plain in PLAIN.items():
            if node.target in (nested, plain):
                node.target = plain if training else nested
    module.recompile()
