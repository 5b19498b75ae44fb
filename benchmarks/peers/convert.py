"""From an ATen graph to stock modules, which is what the peers look for: `nn.Conv2d`, `nn.Linear`,
`nn.BatchNorm2d`."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

Arguments = Mapping[str, Any]
aten = torch.ops.aten


class Disagreement(Exception):
    """The modules compute something else than the graph they were made of."""


def to_modules(source: GraphModule, example: Tensor) -> GraphModule:
    """A graph of stock modules, in evaluation mode, that computes what `source` does.

    Convolutions, linear layers and batch normalisations are called as their weights are
    (`layers.0.conv1.weight` → `layers.0.conv1`), modules without weights as their nodes. What has no module
    stays a function call. Tensors are copied. The graph has one input and one output.
    Raises `Disagreement` where outputs of `example` differ by more than 1e-5.
    """
    made = _Conversion(source).run()
    with torch.no_grad():
        wanted, found = source(example), made(example)
    error = float((wanted - found).abs().max())
    if not error <= 1e-5:
        raise Disagreement(f"outputs differ by {error:.1e}")
    return made


class _Conversion:
    """Copies a graph node by node; what it builds lies in `root` until the end."""

    def __init__(self, source: GraphModule) -> None:
        self.source, self.graph, self.root = source, Graph(), nn.Module()
        self.made: dict[str, nn.Module] = {}
        self.copies: dict[Node, Node] = {}

    def run(self) -> GraphModule:
        for node in self.source.graph.nodes:
            if node.op == "call_function":
                self.copies[node] = self.call(node)
            elif node.op == "output":
                [result] = node.all_input_nodes
                self.graph.output(self.copies[result])
            elif node.op != "get_attr":  # tensors are fetched where they are used
                self.copies[node] = self.copy(node)
        self.graph.lint()
        return GraphModule(self.root, self.graph).eval()

    def copy(self, node: Node) -> Node:
        for tensor in node.all_input_nodes:
            if tensor.op == "get_attr" and tensor not in self.copies:
                value = operator.attrgetter(str(tensor.target))(self.source)
                self.store(str(tensor.target), value.detach().clone(), isinstance(value, nn.Parameter))
                self.copies[tensor] = self.graph.get_attr(str(tensor.target))
        return self.graph.node_copy(node, lambda argument: self.copies[argument])

    def store(self, path: str, value: Tensor, trained: bool) -> None:
        owner, leaf = _place(self.root, path)
        if trained:
            owner.register_parameter(leaf, nn.Parameter(value))
        else:
            owner.register_buffer(leaf, value)

    def call(self, node: Node) -> Node:
        values = _arguments(node)
        module = self.module(node, values)
        if module is not None:
            x = values["input"] if "input" in values else values["self"]
            return self.graph.call_module(module, (self.copies[x],))
        copied = self.copy(node)
        if node.target in _FUNCTIONS:
            copied.target = _FUNCTIONS[node.target]
        return copied

    def module(self, node: Node, values: Arguments) -> str | None:
        """The path of the module that stands for a call; None where there is none."""
        build, weighted = _WEIGHTED.get(node.target), node.target in _WEIGHTED
        build = build or _PLAIN.get(node.target)
        if build is None:
            return None
        tensors = {name: self.fetch(value) for name, value in values.items()}
        path = _owner(values.get("weight")) if weighted else node.name
        if weighted and (
            path is None or path in self.made or not isinstance(tensors["weight"], nn.Parameter)
        ):
            return None  # computed, or used twice: a module would not be alone in having it
        made = build(tensors)
        if made is None or path is None:
            return None
        self.made[path] = made
        owner, leaf = _place(self.root, path)
        owner.add_module(leaf, made)
        return path

    def fetch(self, value: Any) -> Any:
        if isinstance(value, Node) and value.op == "get_attr":
            return operator.attrgetter(str(value.target))(self.source)
        return value


def _arguments(node: Node) -> dict[str, Any]:
    """A call's arguments by name; empty where the target is no operator of torch's."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return {a.name: given.get(a.name, node.kwargs.get(a.name, a.default_value)) for a in schema.arguments}


def _owner(weight: Any) -> str | None:
    """`layers.0.conv1` of the node that reads `layers.0.conv1.weight`."""
    if not (isinstance(weight, Node) and weight.op == "get_attr"):
        return None
    return str(weight.target).rpartition(".")[0] or None


def _place(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that owns what has this path, made where there is none, and the last part of the path."""
    *folders, leaf = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, nn.Module())
        root = root.get_submodule(folder)
    return root, leaf


def _with(module: nn.Module, values: Arguments, *names: str) -> nn.Module:
    """`module` with copies of the named tensors."""
    with torch.no_grad():
        for name in names:
            if values[name] is not None:
                getattr(module, name).copy_(values[name])
    return module


def _pair(value: Any) -> Any:
    """torch's graphs write (1, 1) where a number was meant for every axis."""
    return tuple(value) * (2 // len(value)) if isinstance(value, list | tuple) and value else value


def _conv2d(values: Arguments) -> nn.Module:
    weight, bias, padding = values["weight"], values["bias"], values["padding"]
    groups = values["groups"]
    stride, dilation = _pair(values["stride"]), _pair(values["dilation"])
    padding = padding if isinstance(padding, str) else _pair(padding)
    made = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride,
        padding,
        dilation,
        groups,
        bias=bias is not None,
    )
    return _with(made, values, "weight", "bias")


def _linear(values: Arguments) -> nn.Module:
    weight, bias = values["weight"], values["bias"]
    return _with(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), values, "weight", "bias")


def _batch_norm(values: Arguments) -> nn.Module | None:
    """Of images only, and in evaluation."""
    x, mean = values["input"], values["running_mean"]
    if mean is None or values["training"] or x.meta["val"].dim() != 4:
        return None
    made = nn.BatchNorm2d(len(mean), values["eps"], values["momentum"])
    return _with(made, values, "weight", "bias", "running_mean", "running_var")


def _max_pool2d(values: Arguments) -> nn.Module:
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, stride, padding, dilation = (_pair(values[name]) for name in names)
    return nn.MaxPool2d(kernel, stride or kernel, padding, dilation, ceil_mode=values["ceil_mode"])


def _adaptive_pool(values: Arguments) -> nn.Module:
    return nn.AdaptiveAvgPool2d(tuple(values["output_size"]))


Build = Callable[[Arguments], nn.Module | None]
_WEIGHTED: dict[Any, Build] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
}
_PLAIN: dict[Any, Build] = {
    aten.relu.default: lambda _: nn.ReLU(),
    aten.relu_.default: lambda _: nn.ReLU(),
    aten.max_pool2d.default: _max_pool2d,
    aten.adaptive_avg_pool2d.default: _adaptive_pool,
    aten.dropout.default: lambda values: nn.Dropout(values["p"]),
}
_FUNCTIONS: dict[Any, Callable[..., Any]] = {  # the same arguments, under the name that peers know
    aten.add.Tensor: torch.add,
    aten.flatten.using_ints: torch.flatten,
    aten.view.default: torch.reshape,
    aten.reshape.default: torch.reshape,
    aten.mean.dim: torch.mean,
}
