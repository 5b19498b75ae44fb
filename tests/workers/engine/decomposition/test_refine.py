"""Alternating least squares: it never loses, and one factor's turn is a least-squares solution."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.workers.engine.decomposition.conformance import moment
from workers.engine.decomposition.refine import Ends, Rebuild, refine
from workers.engine.decomposition.svd import truncated_svd
from workers.engine.decomposition.tucker import tucker2
from workers.engine.decomposition.whitening import Root, root, whitened


def _tucker(factors: Sequence[Tensor]) -> Tensor:
    return torch.einsum("ab...,oa,ib->oi...", *factors)


def _cp(factors: Sequence[Tensor]) -> Tensor:
    return torch.einsum("or,ir,hr,wr->oihw", *factors)


def _spatial(factors: Sequence[Tensor]) -> Tensor:
    return torch.einsum("orw,rih->oihw", *factors)


def _train(factors: Sequence[Tensor]) -> Tensor:
    return torch.einsum("oa,aib,bhc,cw->oihw", *factors)


# For a kernel (5, 4, 3, 2), each of rank 2 or thereabouts.
FORMS: dict[str, tuple[Rebuild, list[tuple[int, ...]]]] = {
    "tucker": (_tucker, [(3, 2, 3, 2), (5, 3), (4, 2)]),
    "cp": (_cp, [(5, 2), (4, 2), (3, 2), (2, 2)]),
    "spatial": (_spatial, [(5, 2, 2), (2, 4, 3)]),
    "tensor-train": (_train, [(5, 2), (2, 4, 2), (2, 3, 2), (2, 2)]),
}
form = pytest.mark.parametrize("form", FORMS)


def _random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _start(form: str, seed: int) -> list[Tensor]:
    return [_random(shape, seed + turn) for turn, shape in enumerate(FORMS[form][1])]


def _error(W: Tensor, approximation: Tensor, right: Root | None, left: Root | None) -> float:
    return float(whitened((W - approximation).flatten(1), right, left).square().sum())


@form
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), samples=st.integers(1, 40), weigh_outputs=st.booleans())
def test_no_sweep_raises_the_error(form: str, seed: int, samples: int, weigh_outputs: bool) -> None:
    rebuild = FORMS[form][0]
    W, right = _random((5, 4, 3, 2), seed), root(moment(24, samples, seed))
    left = root(moment(5, 20, seed)) if weigh_outputs else None
    factors = _start(form, seed)
    total, error = _error(W, 0 * W, right, left), _error(W, rebuild(factors), right, left)
    for _ in range(4):
        factors = refine(factors, rebuild, W, right=right, left=left, sweeps=1, steps=4)
        before, error = error, _error(W, rebuild(factors), right, left)
        # Where few samples leave directions free, factors grow along them, and rounding with them.
        assert error <= before + 1e-8 * total


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0, 1, 2]))
def test_a_factors_turn_is_the_dense_least_squares_solution(seed: int, turn: int) -> None:
    W, start = _random((5, 4, 3, 2), seed), _start("tucker", seed)
    right, left = root(moment(24, 60, seed)), root(moment(5, 20, seed))

    def rebuild(one: Sequence[Tensor]) -> Tensor:
        return _tucker([*start[:turn], one[0], *start[turn + 1 :]])

    def columns(factor: Tensor) -> Tensor:
        return whitened(rebuild([factor]).flatten(1), right, left).flatten()

    matrix = torch.func.jacrev(columns)(start[turn]).flatten(1)
    target = whitened(W.flatten(1), right, left).flatten()
    oracle = target - matrix @ torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution[:, 0]
    solved = refine([start[turn]], rebuild, W, right=right, left=left, sweeps=3, steps=300)
    assert _error(W, rebuild(solved), right, left) == pytest.approx(float(oracle.square().sum()), rel=1e-3)


def _chain(factors: Sequence[Tensor]) -> Tensor:
    """Convolutions in a row."""
    whole = factors[0]
    for kernel in factors[1:]:
        whole = torch.einsum("or...,ri...->oi...", kernel, whole)
    return whole


# For a kernel (5, 4, 3, 2): which axes of it each factor of a chain has, and the chain's ends.
CHAINS: dict[str, tuple[list[tuple[int, ...]], Ends]] = {
    "tucker": ([(), (0, 1), ()], Ends(outer=2, inner=0)),
    "outer": ([(), (0, 1), ()], Ends(outer=2)),
    "inner": ([(), (0, 1)], Ends(inner=0)),
    "spatial": ([(0,), (1,)], Ends(inner=0)),
}


chains = pytest.mark.parametrize("chain", CHAINS)
WEIGHTINGS = ["patches", "channels", "diagonal", "none"]


def _links(chain: str, ranks: Sequence[int], seed: int) -> list[Tensor]:
    axes = CHAINS[chain][0]
    channels = [4, *ranks[: len(axes) - 1], 5]
    sizes = [[k if axis in own else 1 for axis, k in enumerate((3, 2))] for own in axes]
    return [
        _random((channels[place + 1], channels[place], *size), seed + place)
        for place, size in enumerate(sizes)
    ]


def _right(weighting: str, seed: int) -> Root | None:
    of_patches = moment(24, 60, seed)
    moments = {"patches": of_patches, "channels": moment(4, 20, seed), "diagonal": of_patches.diagonal()}
    return root(moments[weighting]) if weighting in moments else None


@chains
@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from(WEIGHTINGS),
    st.booleans(),
    st.integers(1, 3),
)
def test_no_sweep_between_ends_raises_the_error(
    chain: str, seed: int, ranks: tuple[int, int], weighting: str, weigh_outputs: bool, steps: int
) -> None:
    W, right = _random((5, 4, 3, 2), seed + 9), _right(weighting, seed)
    left = root(moment(5, 20, seed)) if weigh_outputs else None
    factors = _links(chain, ranks, seed)
    total, error = _error(W, 0 * W, right, left), _error(W, _chain(factors), right, left)
    for _ in range(3):
        factors = refine(
            factors, _chain, W, right=right, left=left, ends=CHAINS[chain][1], sweeps=1, steps=steps
        )
        before, error = error, _error(W, _chain(factors), right, left)
        assert error <= before + 1e-8 * total


@chains
@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.sampled_from(["patches", "diagonal", "none"]),
    st.booleans(),
)
def test_a_step_solves_the_last_factor_of_a_chain(
    chain: str, seed: int, ranks: tuple[int, int], weighting: str, weigh_outputs: bool
) -> None:
    W, right = _random((5, 4, 3, 2), seed + 9), _right(weighting, seed)
    left = root(moment(5, 20, seed)) if weigh_outputs else None
    links = _links(chain, ranks, seed)
    refined = refine(links, _chain, W, right=right, left=left, ends=CHAINS[chain][1], sweeps=1, steps=1)

    def columns(last: Tensor) -> Tensor:
        return whitened(_chain([*refined[:-1], last]).flatten(1), right, left).flatten()

    matrix = torch.func.jacrev(columns)(refined[-1]).reshape(W.numel(), -1)
    target = whitened(W.flatten(1), right, left).flatten()
    oracle = target - matrix @ torch.linalg.lstsq(matrix, target[:, None], driver="gelsd").solution[:, 0]
    total = _error(W, 0 * W, right, left)
    best = pytest.approx(float(oracle.square().sum()), rel=1e-3, abs=1e-6 * total)
    assert _error(W, _chain(refined), right, left) == best


def test_two_factors_of_a_matrix_find_the_whitened_svd() -> None:
    W, right = _random((8, 6), 1), root(moment(6, samples=30))

    def rebuild(factors: Sequence[Tensor]) -> Tensor:
        return factors[0] @ factors[1]

    start = truncated_svd(W, 2)
    refined = refine(start, rebuild, W, right=right, sweeps=100, steps=50)
    best = _error(W, rebuild(truncated_svd(W, 2, right=right)), right, None)
    assert _error(W, rebuild(start), right, None) > 1.2 * best
    assert _error(W, rebuild(refined), right, None) == pytest.approx(best, rel=0.02)


def test_patches_tell_more_than_channels() -> None:
    """Neighbouring pixels are alike, which a moment of channels cannot say."""
    generator = torch.Generator().manual_seed(4)
    images = torch.nn.functional.avg_pool2d(torch.randn(20, 6, 14, 14, generator=generator), 3, 1).double()
    patches = torch.nn.functional.unfold(images, 3).transpose(1, 2).flatten(0, 1)
    pixels = images.transpose(0, 1).flatten(1)
    right, channels = root(patches.T @ patches / len(patches)), root(pixels @ pixels.T / pixels.shape[1])
    W = _random((8, 6, 3, 3), 5)
    start = tucker2(W, (4, 3), right=channels)
    refined = refine(start, _tucker, W, right=right)
    assert _error(W, _tucker(refined), right, None) < 0.9 * _error(W, _tucker(start), right, None)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_zeros_anywhere_give_finite_factors(target: float, start: float) -> None:
    W = torch.full((5, 4, 3, 2), target, dtype=torch.float64)
    factors = [torch.full(shape, start, dtype=torch.float64) for shape in FORMS["cp"][1]]
    for half in (root(torch.zeros(24, 24)), root(moment(24, 3)), None):
        refined = refine(factors, _cp, W, right=half)
        assert all(bool(factor.isfinite().all()) for factor in refined)
        assert _error(W, _cp(refined), half, None) <= _error(W, _cp(factors), half, None)


def test_dtypes_are_kept_and_the_start_is_untouched() -> None:
    start = [factor.float() for factor in _start("spatial", 3)]
    before = [factor.clone() for factor in start]
    refined = refine(start, _spatial, _random((5, 4, 3, 2), 2).float())
    assert all(new.dtype is torch.float32 for new in refined)
    assert all(torch.equal(old, same) for old, same in zip(start, before, strict=True))
    assert not any(torch.equal(old, new) for old, new in zip(start, refined, strict=True))
