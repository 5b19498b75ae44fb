"""Embeddings: rows that occur count, the two ends of a tie share their factors, and batch and length vary."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.workers.engine.networks import TiedTokens, draw_all, seeded, token_network
from workers.engine.decomposition.whitening import root, shrink
from workers.engine.graph import surgery
from workers.engine.graph.network import trace
from workers.engine.layers.embedding import EmbeddingLayer
from workers.engine.layers.find import find
from workers.engine.layers.weighting import Weighting

V, D, R = 40, 12, 3


def embedding_of(module: nn.Module) -> EmbeddingLayer:
    [layer] = find(token_network(module))
    assert isinstance(layer, EmbeddingLayer)
    return layer


def error_on(frequencies: Tensor, weighting: Weighting) -> float:
    """The squared error of the rows of a truncated embedding, by how often they occur."""
    seeded()
    layer = embedding_of(nn.Embedding(V, D))
    W = layer.site.W.clone()
    layer.weigh = lambda: weighting
    approximation = layer.methods["svd"].rewrite((R,)).weight
    return float(frequencies @ (W - approximation).square().sum(1).double())


def test_rows_count_by_their_frequency_and_the_predicted_error_is_exact() -> None:
    frequencies = torch.logspace(0, -4, V, dtype=torch.float64)
    weighting = Weighting(right=root(frequencies))
    found = error_on(frequencies, weighting)
    assert found < 0.6 * error_on(frequencies, Weighting())
    seeded()
    layer = embedding_of(nn.Embedding(V, D))
    layer.weigh = lambda: weighting
    energy = float(frequencies @ layer.site.W.square().sum(1).double())
    assert layer.methods["svd"].error((R,)) == pytest.approx(found / energy, rel=1e-4)


def test_rows_that_never_occur_keep_what_they_share_with_those_that_do() -> None:
    frequencies = torch.ones(V, dtype=torch.float64)
    frequencies[V // 2 :] = 0.0
    seeded()
    layer = embedding_of(nn.Embedding(V, D))
    W = layer.site.W.clone()
    for moment in (frequencies, shrink(frequencies, 0.1)):
        layer = embedding_of(nn.Embedding(V, D, _weight=W.clone()))
        layer.weigh = lambda moment=moment: Weighting(right=root(moment))  # type: ignore[misc]
        rebuilt = layer.methods["svd"].rewrite((D - 1,)).weight
        assert bool(rebuilt.isfinite().all())
        assert F.cosine_similarity(rebuilt, W).min() > 0.1


def test_lookups_give_counts_and_heads_the_expected_ones() -> None:
    seeded()
    layer = embedding_of(TiedTokens(V, D))
    lookup, head = sorted(layer.sites, key=lambda site: site.bias is not None)
    ids = torch.tensor([[1, 1, 5]])
    counts = layer.vectors({**lookup.arguments, "indices": ids})
    assert counts.tolist() == [0, 2, 0, 0, 0, 1] + [0] * (V - 6)
    x, W, b = torch.randn(2, 1500, D), layer.site.W, torch.randn(V)
    expected = layer.vectors({"input": x, "weight": W, "bias": b})
    torch.testing.assert_close(
        expected, F.linear(x, W, b).softmax(-1).sum((0, 1)).double(), rtol=1e-5, atol=1e-5
    )
    assert layer.transposed_vectors({**lookup.arguments, "indices": ids}) is None
    seen = layer.transposed_vectors({**head.arguments, "input": x})
    assert seen is not None
    assert torch.equal(seen, x.reshape(-1, D))


def test_both_ends_of_a_tie_share_two_factors_at_every_batch_and_length() -> None:
    seeded()
    network = token_network(TiedTokens(V, D))
    copy = network.copy()
    [layer] = find(copy)
    layer.methods["svd"].rewrite((D,))
    surgery.prune(copy.module)
    other = trace(copy.module, copy.inputs)
    assert sorted(p.numel() for p in other.module.parameters()) == sorted([V * D, D * D, V])
    for batch, length in ((1, 1), (4, 9)):
        [x] = draw_all(network, batch, length)
        torch.testing.assert_close(other(x), network(x), rtol=1e-4, atol=1e-4)


def test_an_embedding_alone_saves_parameters_though_a_lookup_multiplies_nothing() -> None:
    layer = embedding_of(nn.Embedding(V, D))
    assert layer.macs == 0
    [form, *_] = layer.methods["svd"].forms(8)
    assert (form.parameters, form.macs) == (8 * (V + D), 6 * 8 * D)
    assert layer.saves(form)
