"""What a network's output means, read from the graph."""

from typing import Literal

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from workers.engine.graph.network import Network
from workers.engine.graph.shapes import shapes

OutputKind = Literal["logits", "probabilities", "log_probabilities"]

_KEEPS_VALUES = {
    "_to_copy",
    "_unsafe_view",
    "alias",
    "clone",
    "detach",
    "dropout",
    "lift_fresh_copy",
}


def outputs_are(network: Network) -> OutputKind:
    """Whether the network's first output ends in a softmax, a log-softmax, or neither: logits.

    Views, casts and copies after it are looked through. A sigmoid's values are no distribution over classes,
    so they count as logits.
    """
    node = _producer(_first_output(network))
    name = _name(node)
    if name in ("softmax", "_softmax", "_safe_softmax"):
        return "probabilities"
    if name in ("log_softmax", "_log_softmax"):
        return "log_probabilities"
    inner = _name(_producer(node.all_input_nodes[0])) if name in ("log", "exp") else ""
    if name == "log" and inner in ("softmax", "_softmax"):
        return "log_probabilities"
    if name == "exp" and inner in ("log_softmax", "_log_softmax"):
        return "probabilities"
    return "logits"


_SCORES = {"linear", "addmm", "mm", "matmul", "conv1d", "conv2d", "conv3d"}


def rank_classes(network: Network) -> bool:
    """Whether the first output, (rows, scores), seems to hold one for each class: a softmax, or what a last
    layer of weights gives. Embeddings are mostly pooled or normalised after theirs."""
    output = _first_output(network)
    scores = outputs_are(network) != "logits" or _name(_producer(output)) in _SCORES
    return scores and len(shapes(network)[output.name]) == 2


def _first_output(network: Network) -> Node:
    return network.module.graph.output_node().all_input_nodes[0]


def _producer(node: Node) -> Node:
    """The node that computed the values which `node` passes on."""
    while isinstance(node.target, OpOverload) and (node.target.is_view or _name(node) in _KEEPS_VALUES):
        node = node.all_input_nodes[0]
    return node


def _name(node: Node) -> str:
    return (
        str(node.target.overloadpacket).removeprefix("aten.") if isinstance(node.target, OpOverload) else ""
    )


def log_probabilities(outputs: Tensor, kind: OutputKind) -> Tensor:
    """Of outputs (…, classes), whatever they are."""
    if kind == "logits":
        return outputs.log_softmax(-1)
    if kind == "log_probabilities":
        return outputs
    # a softmax underflows to zero where the true probability is below its smallest number
    tiny = max(torch.finfo(dtype).tiny for dtype in (outputs.dtype, torch.float32))
    return outputs.clamp_min(tiny).log()
