"""Paired bootstrap: whether one selection is better than another on the same rows, and in how many cells."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CHUNK = 1 << 22  # drawn numbers held at once


def resampled_means(differences: Floats, resamples: int, random: np.random.Generator) -> Floats:
    """Means over rows drawn with replacement, the same rows for every column: (rows, cells) to
    (resamples, cells) (Efron & Tibshirani 1993, chapter 6)."""
    rows = len(differences)
    shares = np.full(rows, 1.0 / rows)
    drawn = (random.multinomial(rows, shares, size) for size in _chunks(resamples, rows))
    means: Floats = np.concatenate([counts @ differences for counts in drawn]) / rows
    return means


def p_values(means: Floats) -> Floats:
    """One-sided, for each column: how often the resampled mean is no better than zero. Never zero: the sample
    itself counts as one resample more (Davison & Hinkley 1997, section 4.2)."""
    found: Floats = (1.0 + (means <= 0.0).sum(0)) / (1.0 + len(means))
    return found


def share_won(differences: Floats) -> Floats:
    """The share of cells, the last axis, with a positive difference; no difference counts half."""
    shares: Floats = np.asarray(((differences > 0.0) + 0.5 * (differences == 0.0)).mean(-1))
    return shares


def p_of_share(means: Floats, least: float, random: np.random.Generator) -> float:
    """How often fewer than `least` of the cells are won, where the cells are drawn with replacement too: one
    draw of cells for each resample of their rows, (resamples, cells)."""
    resamples, cells = means.shape
    drawn = random.integers(0, cells, (resamples, cells))
    shares = share_won(np.take_along_axis(means, drawn, 1))
    return float((1 + (shares < least).sum()) / (1 + resamples))


def _chunks(resamples: int, rows: int) -> Iterator[int]:
    step = max(1, _CHUNK // rows)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
