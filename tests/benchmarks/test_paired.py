"""The paired bootstrap: where its answers are known otherwise."""

from math import erfc, sqrt

import numpy as np
import pytest

from benchmarks.paired import p_of_share, p_values, resampled_means, share_won

RESAMPLES = 4000


def _random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_resampled_means_spread_like_the_standard_error() -> None:
    rows = _random(1).normal(0.5, 2.0, (400, 1))
    means = resampled_means(rows, RESAMPLES, _random())
    assert means.shape == (RESAMPLES, 1)
    assert means.mean() == pytest.approx(rows.mean(), abs=0.01)
    assert means.std() == pytest.approx(rows.std() / sqrt(len(rows)), rel=0.05)


def test_the_p_value_is_that_of_a_test_of_means() -> None:
    rows = _random(1).normal(0.1, 1.0, (400, 1))
    z = rows.mean() / (rows.std() / sqrt(len(rows)))
    [p] = p_values(resampled_means(rows, RESAMPLES, _random()))
    assert p == pytest.approx(erfc(z / sqrt(2)) / 2, abs=0.02)


def test_columns_are_drawn_together_and_the_same_seed_draws_the_same() -> None:
    rows = _random(1).normal(size=(50, 1))
    means = resampled_means(np.hstack([rows, -2.0 * rows]), 100, _random())
    np.testing.assert_allclose(means[:, 1], -2.0 * means[:, 0])
    assert (means == resampled_means(np.hstack([rows, -2.0 * rows]), 100, _random())).all()


def test_nothing_is_proven_by_no_difference_and_never_everything() -> None:
    rows = np.stack([np.zeros(20), np.ones(20), -np.ones(20)], 1)
    p = p_values(resampled_means(rows, 99, _random()))
    assert p.tolist() == pytest.approx([1.0, 0.01, 1.0])


def test_a_tie_is_half_a_cell() -> None:
    assert share_won(np.array([0.3, 0.0, -0.1, 0.2])) == 0.625
    assert share_won(np.array([[1.0, 1.0], [0.0, -1.0]])).tolist() == [1.0, 0.25]


def test_the_share_of_cells_is_as_sure_as_cells_drawn_anew_make_it() -> None:
    always = np.ones((999, 8))
    assert p_of_share(always, 0.8, _random()) == pytest.approx(0.001)
    assert p_of_share(-always, 0.8, _random()) == 1.0
    one_lost = np.hstack([np.ones((20_000, 4)), -np.ones((20_000, 1))])
    # fewer than four of five: the lost cell is drawn twice or more of five times
    expected = 1.0 - 0.8**5 - 5 * 0.2 * 0.8**4
    assert p_of_share(one_lost, 0.8, _random()) == pytest.approx(expected, abs=0.015)


def test_rows_that_decide_nothing_make_the_share_unsure() -> None:
    rows = _random(1).normal(0.0, 1.0, (200, 1)).repeat(8, 1)
    rows -= rows.mean()
    p = p_of_share(resampled_means(rows, RESAMPLES, _random()), 0.8, _random())
    assert p == pytest.approx(0.5, abs=0.05)
