"""From moments to a weighting: whatever was seen, the weighting can be used."""

from pathlib import Path

import pytest
import torch

from workers.engine.calibration.moments import Moments, weighting
from workers.engine.decomposition.svd import truncated_svd
from workers.engine.layers.weighting import PLAIN


def _moments(X: torch.Tensor, gradients: torch.Tensor | None = None) -> Moments:
    moments = Moments.empty(X.shape[1])
    moments.see_inputs(X)
    if gradients is not None:
        moments.see_gradients(gradients)
    return moments


def _data(positions: int, n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, n)
    return torch.randn(positions, n, generator=generator) * scales + 1.0


def test_the_root_is_of_the_centred_moment_up_to_the_shrinkage() -> None:
    X = _data(5000, 4)
    found = weighting(_moments(X), "inputs", centred=True)
    assert found.right is not None
    assert found.mean is not None
    torch.testing.assert_close(found.mean, X.mean(0).double(), rtol=1e-4, atol=1e-4)
    C = found.right.L @ found.right.L.T
    spread = torch.cov(X.T.double(), correction=0)
    raw = (X.double().T @ X.double() / len(X)).trace() / 4
    torch.testing.assert_close(
        C, 0.9 * spread + 0.1 * raw * torch.eye(4, dtype=C.dtype), rtol=1e-4, atol=1e-4
    )
    assert found.warnings == ()


def test_gradients_count_only_where_both_sides_are_wanted() -> None:
    moments = _moments(_data(100, 4), _data(100, 3, seed=1))
    assert weighting(moments, "inputs", centred=False).left is None
    left = weighting(moments, "two_sided", centred=False).left
    assert left is not None
    assert left.L.shape == (3, 3)
    assert weighting(moments, "none", centred=False) is PLAIN


def test_outlying_gradients_are_clipped() -> None:
    gradients = torch.ones(100, 2)
    gradients[0] = 1e6
    moments = _moments(_data(100, 4), gradients)
    assert moments.outputs is not None
    assert moments.outputs[0, 0] < (100 * 1e6) ** 2 / 1e4


@pytest.mark.parametrize("positions", [1, 3])
def test_fewer_positions_than_inputs_warn_and_still_give_finite_factors(positions: int) -> None:
    found = weighting(_moments(_data(positions, 8)), "inputs", centred=True)
    assert any("positions for 8 inputs" in warning for warning in found.warnings)
    A, B = truncated_svd(torch.randn(5, 8), 2, right=found.right)
    assert bool(A.isfinite().all() and B.isfinite().all())
    assert (A @ B).norm() > 0


def test_inputs_that_were_always_zero_give_finite_factors_and_a_warning() -> None:
    found = weighting(_moments(torch.zeros(50, 8), torch.zeros(50, 5)), "two_sided", centred=True)
    assert any("singular" in warning for warning in found.warnings)
    A, B = truncated_svd(torch.randn(5, 8), 2, right=found.right, left=found.left)
    assert bool(A.isfinite().all() and B.isfinite().all())


def test_nothing_seen_is_no_weighting() -> None:
    assert weighting(Moments.empty(4), "two_sided", centred=True) is PLAIN


def test_one_hot_inputs_have_a_diagonal(tmp_path: Path) -> None:
    moments = Moments.empty(5, one_hot=True)
    moments.see_inputs(torch.tensor([3.0, 0.0, 1.0, 0.0, 4.0]))
    found = weighting(moments, "inputs", centred=False)
    assert moments.count == 8
    assert found.right is not None
    assert found.right.L.shape == (5,)
    assert bool((found.right.L > 0).all())


def test_moments_are_read_as_they_were_written(tmp_path: Path) -> None:
    for moments in (_moments(_data(9, 4)), _moments(_data(9, 4), _data(9, 3))):
        moments.save(tmp_path / "m.npz")
        read = Moments.load(tmp_path / "m.npz")
        assert torch.equal(read.inputs, moments.inputs)
        assert torch.equal(read.total, moments.total)
        assert (read.count, read.output_count) == (moments.count, moments.output_count)
        assert (read.outputs is None) == (moments.outputs is None)


@pytest.mark.parametrize("gradients", [False, True])
def test_moments_of_parts_add_up_to_those_of_the_whole(gradients: bool) -> None:
    X, G = _data(100, 6), _data(100, 3, seed=1)
    parts = [_moments(X[:40], G[:40] if gradients else None), _moments(X[40:], G[40:] if gradients else None)]
    found, whole = parts[0].plus(parts[1]), Moments.empty(6)
    whole.see_inputs(X)
    for mine, wanted in ((found.inputs, whole.inputs), (found.total, whole.total)):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-4)
    assert (found.count, found.output_count) == (100, 100 if gradients else 0)
    assert (found.outputs is None) == (not gradients)
