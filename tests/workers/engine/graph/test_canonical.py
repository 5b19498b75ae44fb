"""One recurrent layer per call, whatever the stack was, and the same numbers."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.workers.engine.networks import draw_all, image_network, recurrent_network
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Network, call_nodes
from workers.engine.graph.recurrent import RECURRENT
from workers.engine.graph.surgery import arguments, set_training

aten = torch.ops.aten


def calls(network: Network) -> list[dict[str, object]]:
    return [arguments(node) for node in call_nodes(network.module) if node.target in RECURRENT]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh", "relu", "projected"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": False, "bidirectional": True},
        {"bidirectional": True, "bias": False, "dropout": 0.3},
    ],
    ids=str,
)
def test_a_stack_becomes_a_chain_that_computes_the_same(
    options: dict[str, bool], cell: str, given: bool
) -> None:
    network = recurrent_network(cell, given=given, num_layers=3, **options)
    inputs = [draw_all(network, batch, length) for batch, length in ((1, 6), (4, 9))]
    expected = [tree_leaves(network(*tensors)) for tensors in inputs]
    names = set(network.module.state_dict())
    chain = canonicalise(network)
    assert [call["num_layers"] for call in calls(chain)] == [1, 1, 1]
    assert set(chain.module.state_dict()) == names
    for tensors, leaves in zip(inputs, expected, strict=True):
        for got, wanted in zip(tree_leaves(chain(*tensors)), leaves, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_what_a_stack_drops_between_its_layers_is_dropped_in_training_only() -> None:
    chain = canonicalise(recurrent_network("gru", num_layers=2, dropout=0.9))
    [x] = draw_all(chain, 4, 6)
    [dropout] = [node for node in call_nodes(chain.module) if node.target is aten.dropout.default]
    assert dropout.args[1:] == (0.9, False)
    set_training(chain.module, True)
    assert not torch.equal(chain(x)[0], chain(x)[0])
    set_training(chain.module, False)
    assert torch.equal(chain(x)[0], chain(x)[0])


def test_last_states_are_concatenated_only_where_something_reads_them() -> None:
    targets = [
        [node.target for node in call_nodes(canonicalise(network).module)]
        for network in (
            recurrent_network("lstm", num_layers=2),
            recurrent_network("lstm", num_layers=2, sequence_only=True),
        )
    ]
    assert [found.count(aten.cat.default) for found in targets] == [2, 0]


def test_a_network_without_stacks_is_left_alone() -> None:
    for network in (recurrent_network("lstm", num_layers=1), image_network(nn.Conv2d(3, 4, 3))):
        assert canonicalise(network) is network
