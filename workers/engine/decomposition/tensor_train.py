"""Tensor trains: a matrix as a chain of small cores (Oseledets 2011), for embeddings and very wide layers.

The rows of W (m, n) are numbered by digits i_1 … i_d of bases `rows` = (m_1, …, m_d), the most significant
first, its columns by digits j_1 … j_d of bases `columns` = (n_1, …, n_d). Core k is G_k (r_{k−1}, m_k, n_k,
r_k), with r_0 = r_d = 1, and W[i, j] = G_1[:, i_1, j_1] G_2[:, i_2, j_2] … (Novikov et al. 2015). `ranks` are
the d − 1 inner ones. Where m < ∏ m_k the missing rows are zeros; nobody asks for them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise, takewhile
from math import prod

import torch
from torch import Tensor

from workers.engine.decomposition.spectrum import leading_left_vectors, relative_tails, singular_energies

Sizes = tuple[int, ...]


def tensor_train(W: Tensor, rows: Sizes, columns: Sizes, ranks: Sizes) -> tuple[Tensor, ...]:
    """TT-SVD at given ranks.

    The squared error is at most the sum of the energies that the d − 1 unfoldings lose at their ranks, hence
    at most d − 1 times that of the best train (Oseledets 2011, theorem 2.2).

    Args:
        W: shape (m, n), m ≤ ∏ rows, n = ∏ columns.
        rows, columns: d sizes each.
        ranks: each 1 … its own of `max_ranks`, where nothing is lost; the cores get the `feasible_ranks`.

    Returns:
        d cores (r_{k−1}, m_k, n_k, r_k) of equal norms, in W's dtype, on its device.

    Raises:
        ValueError: sizes that do not fit W, or ranks out of range.
    """
    ranks = feasible_ranks(rows, columns, ranks)
    return _finished(_sweep(_digits(W, rows, columns), lambda k, _: ranks[k]), rows, columns, W.dtype)


def tensor_train_within(W: Tensor, rows: Sizes, columns: Sizes, epsilon: float) -> tuple[Tensor, ...]:
    """TT-SVD with ‖W − Ŵ‖_F ≤ ε ‖W‖_F: each step takes the least rank that loses at most ε ‖W‖_F / √(d − 1).

    Args:
        W, rows, columns: as for `tensor_train`.
        epsilon: 0 or more.

    Raises:
        ValueError: sizes that do not fit W.
    """
    allowed = epsilon**2 * float(W.double().square().sum()) / max(len(rows) - 1, 1)

    def least(_: int, M: Tensor) -> int:
        energies = singular_energies(M)
        lost = energies.flip(0).cumsum(0)
        return max(len(energies) - int((lost <= allowed).sum()), 1)

    return _finished(_sweep(_digits(W, rows, columns), least), rows, columns, W.dtype)


def rebuild(cores: Sequence[Tensor]) -> Tensor:
    """The matrix of a train: (∏ rows, ∏ columns)."""
    product = cores[0]
    for core in cores[1:]:
        product = torch.einsum("rabs,scdt->racbdt", product, core).flatten(1, 2).flatten(2, 3)
    return product[0, :, :, 0]


def apply(cores: Sequence[Tensor], x: Tensor) -> Tensor:
    """W x from the cores alone: x (…, n) into (…, ∏ rows).

    From the last core to the first. Before core k the state is (N, ∏_{j>k} m_j, ∏_{j<k} n_j, n_k r_k):
    outputs found, inputs left. A product with the core as a matrix turns its last axis into m_k r_{k−1}; then
    m_k moves to the front of the outputs found. `macs` counts exactly these products.
    """
    state = x.reshape(-1, 1, x.shape[-1], 1)
    for core in reversed(cores):
        before, m, n, after = core.shape
        found, left = state.shape[1], state.shape[2] // n
        state = state.reshape(-1, found, left, n * after)
        state = state @ core.permute(2, 3, 1, 0).reshape(n * after, m * before)
        state = state.reshape(-1, found, left, m, before).permute(0, 3, 1, 2, 4)
        state = state.reshape(-1, m * found, left, before)
    return state.reshape(*x.shape[:-1], -1)


def rows_of(cores: Sequence[Tensor], indices: Tensor) -> Tensor:
    """Rows of W, as an embedding looks them up: indices (…) into (…, n).

    Every core is a table of m_k rows (r_{k−1}, n_k, r_k), looked up by its digit of the index. From the first
    to the last, the state (N, ∏_{j<k} n_j, r_{k−1}) is multiplied by the row as a matrix (r_{k−1}, n_k r_k).
    `lookup_macs` counts exactly these products.
    """
    flat, stride = indices.reshape(-1), prod(core.shape[1] for core in cores)
    found = []
    for core in cores:
        stride //= core.shape[1]
        found.append(core.transpose(0, 1)[flat // stride % core.shape[1]])
    state = found[0].squeeze(1)
    for matrices in found[1:]:
        state = (state @ matrices.flatten(2)).reshape(len(flat), -1, matrices.shape[-1])
    return state.reshape(*indices.shape, -1)


def unfolding_tails(W: Tensor, rows: Sizes, columns: Sizes) -> list[Tensor]:
    """For each of the d − 1 bonds, the relative energy that its unfolding loses at every rank.

    Returns:
        per bond shape (its `max_ranks` + 1,), float64, as of `relative_tails`. The squared relative error of
        ranks r is between the largest and the sum of tails[k][r_k].

    Raises:
        ValueError: sizes that do not fit W.
    """
    T = _digits(W, rows, columns)
    unfoldings = (T.reshape(prod(T.shape[:k]), -1) for k in range(1, len(rows)))
    return [relative_tails(singular_energies(unfolding)) for unfolding in unfoldings]


def max_ranks(rows: Sizes, columns: Sizes) -> Sizes:
    """The ranks at which every matrix is exact: the smaller side of each unfolding."""
    sizes = [m * n for m, n in zip(rows, columns, strict=True)]
    return tuple(min(prod(sizes[:k]), prod(sizes[k:])) for k in range(1, len(sizes)))


def feasible_ranks(rows: Sizes, columns: Sizes, ranks: Sizes) -> Sizes:
    """The ranks of the cores: each lowered to what the last can feed, r_k ≤ r_{k−1} m_k n_k.

    Raises:
        ValueError: not one rank a bond, or one that is outside 1 … `max_ranks`.
    """
    largest = max_ranks(rows, columns)
    if len(ranks) != len(largest) or not all(1 <= r <= most for r, most in zip(ranks, largest, strict=True)):
        raise ValueError(f"ranks {ranks} are outside 1 … {largest}")
    feasible, fed = [], 1
    for rank, m, n in zip(ranks, rows, columns, strict=False):
        fed = min(rank, fed * m * n)
        feasible.append(fed)
    return tuple(feasible)


def parameters(rows: Sizes, columns: Sizes, ranks: Sizes) -> int:
    """Weights of all cores: Σ r_{k−1} m_k n_k r_k."""
    bonds = _bonds(rows, columns, ranks)
    return sum(m * n * r * s for m, n, (r, s) in zip(rows, columns, bonds, strict=True))


def macs(rows: Sizes, columns: Sizes, ranks: Sizes) -> int:
    """Multiply-accumulates of `apply` for one vector: Σ r_{k−1} r_k ∏_{j≤k} n_j ∏_{j≥k} m_j."""
    bonds = _bonds(rows, columns, ranks)
    return sum(prod(columns[: k + 1]) * prod(rows[k:]) * r * s for k, (r, s) in enumerate(bonds))


def lookup_macs(rows: Sizes, columns: Sizes, ranks: Sizes) -> int:
    """Multiply-accumulates of `rows_of` for one index: Σ_{k≥2} r_{k−1} r_k ∏_{j≤k} n_j."""
    bonds = _bonds(rows, columns, ranks)
    return sum(prod(columns[: k + 1]) * r * s for k, (r, s) in enumerate(bonds) if k > 0)


def factor_shape(size: int, parts: int, *, ceil: bool = False) -> Sizes:
    """A size as a product of `parts` factors as alike as can be, smallest first.

    With `ceil` the product may be a little larger: a vocabulary of a prime size has no factors, but can be
    padded. Else it is exact, and the factors are those of least sum.
    """
    if not ceil:
        return min(_factorings(size, parts, 1), key=sum)
    factors = []
    for left in range(parts, 0, -1):
        factors.append(next(f for f in range(1, size + 1) if f**left >= size))
        size = -(-size // factors[-1])
    return tuple(sorted(factors))


def _factorings(size: int, parts: int, least: int) -> Iterator[Sizes]:
    """Every rising sequence of `parts` factors, none under `least`, whose product is `size`."""
    if parts == 1:
        yield (size,)
        return
    for factor in takewhile(lambda f: f**parts <= size, count(least)):
        if size % factor == 0:
            yield from ((factor, *others) for others in _factorings(size // factor, parts - 1, factor))


def _digits(W: Tensor, rows: Sizes, columns: Sizes) -> Tensor:
    """W in float64 with one axis per pair of digits, (m_1 n_1, …, m_d n_d); missing rows are zeros."""
    m, n = W.shape
    if len(rows) != len(columns) or m > prod(rows) or n != prod(columns):
        raise ValueError(f"rows {rows} and columns {columns} do not fit a {m} × {n} matrix")
    padded = W.new_zeros(prod(rows), n, dtype=torch.float64)
    padded[:m] = W
    interleaved = [axis for k in range(len(rows)) for axis in (k, len(rows) + k)]
    sizes = [m * n for m, n in zip(rows, columns, strict=True)]
    return padded.reshape(*rows, *columns).permute(interleaved).reshape(sizes)


def _sweep(T: Tensor, choose: Callable[[int, Tensor], int]) -> list[Tensor]:
    """Cores (r_{k−1}, size_k, r_k) from left to right, all but the last orthonormal."""
    cores, before = [], 1
    for k, size in enumerate(T.shape[:-1]):
        M = T.reshape(before * size, -1)
        rank = choose(k, M)
        U = leading_left_vectors(M, rank)
        cores.append(U.reshape(before, size, rank))
        T, before = U.T @ M, rank
    return [*cores, T.reshape(before, -1, 1)]


def _finished(cores: Sequence[Tensor], rows: Sizes, columns: Sizes, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Cores of equal norms, with an axis for rows and one for columns."""
    norms = torch.stack([core.norm() for core in cores])
    scales = (norms.log().mean().exp() / norms).where(norms.prod() > 0, 1.0)
    return tuple(
        (core * scale).reshape(len(core), m, n, -1).to(dtype)
        for core, scale, m, n in zip(cores, scales, rows, columns, strict=True)
    )


def _bonds(rows: Sizes, columns: Sizes, ranks: Sizes) -> list[tuple[int, int]]:
    """(r_{k−1}, r_k) of every core."""
    return list(pairwise([1, *feasible_ranks(rows, columns, ranks), 1]))
