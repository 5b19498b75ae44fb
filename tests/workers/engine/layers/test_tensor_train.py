"""Tensor trains of layers: fitted to the data where there are any, and priced by what they are."""

import pytest
import torch
from torch import Tensor, nn

from tests.workers.engine.decomposition.conformance import moment
from tests.workers.engine.networks import TiedTokens, seeded, token_network, vector_network
from workers.engine.decomposition.whitening import root, whitened
from workers.engine.graph.network import Network
from workers.engine.layers.find import find
from workers.engine.layers.weighting import PLAIN, Weighting


def change(network: Network, weighting: Weighting) -> Tensor:
    """W − Ŵ of a train of rank 2 that was fitted under a weighting; a table is (d, V)."""
    [layer] = find(network.copy())
    layer.weigh = lambda: weighting
    W = layer.site.W.clone()
    found = W - layer.methods["tensor_train"].rewrite((2, 2)).weight
    return (found.T if layer.one_hot else found).double()


def test_a_linear_layers_train_is_fitted_to_its_inputs_and_gradients() -> None:
    seeded()
    network = vector_network(nn.Linear(24, 16), 24)
    weighting = Weighting(right=root(moment(24, 60)), left=root(moment(16, 60, seed=1)))
    changes = [change(network, fitted) for fitted in (weighting, PLAIN)]
    errors = [whitened(each, weighting.right, weighting.left).norm() for each in changes]
    assert errors[0] < 0.9 * errors[1]


def test_an_embeddings_train_is_fitted_to_the_frequencies_of_its_rows() -> None:
    seeded()
    network = token_network(nn.Embedding(50, 12))
    weighting = Weighting(right=root(torch.logspace(0, -4, 50, dtype=torch.float64)))
    changes = [change(network, fitted) for fitted in (weighting, PLAIN)]
    errors = [whitened(each, weighting.right, weighting.left).norm() for each in changes]
    assert errors[0] < 0.9 * errors[1]


def test_the_mean_output_is_kept_where_the_inputs_have_one() -> None:
    seeded()
    network = vector_network(nn.Linear(24, 16), 24)
    mean = torch.randn(24, dtype=torch.float64)
    copy = network.copy()
    [layer] = find(copy)
    layer.weigh = lambda: Weighting(right=root(moment(24, 60)), mean=mean)
    layer.methods["tensor_train"].rewrite((2, 2))
    copy.module.recompile()
    x = mean.float()[None]
    torch.testing.assert_close(copy(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("vocabulary", "parameters"), [(27, 2 * 6 + 2 * 3 * 2 * 2 + 2 * 6), (23, 48)])
def test_a_vocabulary_without_factors_is_padded(vocabulary: int, parameters: int) -> None:
    [layer] = find(token_network(nn.Embedding(vocabulary, 8)))
    assert layer.methods["tensor_train"].form((2, 2)).parameters == parameters


def test_a_table_that_a_head_shares_takes_no_train() -> None:
    [layer] = find(token_network(TiedTokens(27, 8)))
    assert list(layer.methods) == ["svd"]
