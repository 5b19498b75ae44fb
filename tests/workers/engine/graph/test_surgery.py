"""Graph editing: arguments by name, parameters by path, nothing unused left behind."""

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.networks import Convolutional, image_network, vector_network
from workers.engine.graph import surgery
from workers.engine.graph.network import call_nodes
from workers.engine.graph.shapes import shapes

aten = torch.ops.aten


def test_arguments_are_named_with_their_defaults() -> None:
    [node] = call_nodes(image_network(nn.Conv2d(3, 4, 3, bias=False)).module)
    values = surgery.arguments(node)
    assert list(values) == ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    assert (values["bias"], values["groups"]) == (None, 1)


def test_what_a_replaced_node_read_is_pruned_and_the_new_parameter_trains() -> None:
    module = image_network(nn.Conv2d(3, 4, 3, bias=False)).module
    [node] = call_nodes(module)

    def build() -> torch.fx.Node:
        surgery.store(module, "new.folder.kernel", torch.ones(4, 3, 1, 1))
        weight = module.graph.get_attr("new.folder.kernel")
        return surgery.call(module, aten.conv2d.default, surgery.arguments(node)["input"], weight)

    surgery.replace(module, node, build)
    surgery.prune(module)
    assert [name for name, _ in module.named_parameters()] == ["new.folder.kernel"]
    assert module(torch.ones(1, 3, 8, 8)).unique().tolist() == [3.0]
    assert module.get_parameter("new.folder.kernel").requires_grad


def test_shapes_are_those_of_a_batch_of_one() -> None:
    network = image_network(Convolutional(width=8, classes=4))
    found = shapes(network)
    assert found["x"] == (1, 3, 8, 8)
    assert found[network.module.graph.output_node().args[0][0].name] == (1, 4)  # type: ignore[index, union-attr]


class _Positional(nn.Module):
    """Adds a position to every feature: the call that counts them names a device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + torch.arange(4, device=x.device)


def test_a_graph_that_is_moved_makes_its_own_tensors_there_too() -> None:
    module = vector_network(_Positional(), 4).module
    surgery.place(module, "meta")
    assert module(torch.ones(2, 4, device="meta")).device.type == "meta"


@pytest.mark.parametrize(
    ("tensor", "finite"),
    [
        (torch.tensor([1.0, -2.0]), True),
        (torch.tensor([]), True),
        (torch.tensor([3e38, 3e38]), True),  # whose sum is not
        (torch.tensor([6e4, 6e4], dtype=torch.float16), True),
        (torch.tensor([1.0, float("nan")]), False),
        (torch.tensor([float("inf"), float("-inf")]), False),
        (torch.tensor([float("-inf"), 1.0]), False),
    ],
)
def test_weights_are_finite_where_every_element_is(tensor: Tensor, finite: bool) -> None:
    assert surgery.is_finite(nn.Parameter(tensor)) is finite
