"""What every decomposition promises. A new one inherits this suite and names its tensors and ranks."""

from abc import ABC, abstractmethod
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

Ranks = tuple[int, ...]

# One inherited test runs for several classes, which is the very point of this suite.
_promise = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.differing_executors])


def moment(n: int, samples: int, seed: int = 0) -> Tensor:
    """The second moment (n, n) of random samples that favour some directions; singular for fewer than n."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(samples, n, generator=generator, dtype=torch.float64)
    X *= torch.logspace(0, -2, n, dtype=torch.float64)
    return X.T @ X / samples


class DecompositionConformance(ABC):
    """Inherit, fill in the abstract methods, add what is special."""

    monotonic = True  # theory says that the error never rises with the rank

    @abstractmethod
    def shape(self, draw: Any) -> tuple[int, ...]:
        """A shape to decompose."""

    @abstractmethod
    def full_rank(self, shape: tuple[int, ...]) -> Ranks:
        """The ranks at which nothing is lost."""

    @abstractmethod
    def factors(self, W: Tensor, ranks: Ranks) -> tuple[Tensor, ...]:
        """The decomposition under test."""

    @abstractmethod
    def rebuild(self, factors: tuple[Tensor, ...]) -> Tensor:
        """The dense tensor that the factors stand for."""

    @abstractmethod
    def least_error(self, W: Tensor, ranks: Ranks) -> float:
        """A bound from a dense float64 oracle that the squared error must not exceed."""

    def error(self, W: Tensor, ranks: Ranks) -> float:
        """Squared Frobenius error at these ranks."""
        return float((self.rebuild(self.factors(W, ranks)).double() - W.double()).square().sum())

    def tensor(self, data: st.DataObject, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
        return torch.randn(self.shape(data.draw), generator=generator, dtype=torch.float64).to(dtype)

    def ranks(self, data: st.DataObject, W: Tensor) -> Ranks:
        return tuple(data.draw(st.integers(1, r)) for r in self.full_rank(tuple(W.shape)))

    @_promise
    @given(st.data())
    def test_full_rank_reconstructs(self, data: st.DataObject) -> None:
        W = self.tensor(data)
        rebuilt = self.rebuild(self.factors(W, self.full_rank(tuple(W.shape))))
        torch.testing.assert_close(rebuilt, W, rtol=1e-9, atol=1e-9)

    @_promise
    @given(st.data())
    def test_error_never_rises_with_rank(self, data: st.DataObject) -> None:
        if not self.monotonic:
            pytest.skip("no such theorem")
        W = self.tensor(data)
        ranks = self.ranks(data, W)
        larger = tuple(
            min(r + 1, full) for r, full in zip(ranks, self.full_rank(tuple(W.shape)), strict=True)
        )
        assert self.error(W, larger) <= self.error(W, ranks) * (1 + 1e-6) + 1e-12

    @_promise
    @given(st.data())
    def test_error_is_within_the_oracle(self, data: st.DataObject) -> None:
        W = self.tensor(data)
        ranks = self.ranks(data, W)
        assert self.error(W, ranks) <= self.least_error(W, ranks) * (1 + 1e-8) + 1e-12

    @_promise
    @given(st.data(), st.sampled_from([torch.float32, torch.float64]))
    def test_dtype_and_device_are_kept_and_the_input_is_untouched(
        self, data: st.DataObject, dtype: torch.dtype
    ) -> None:
        W = self.tensor(data, dtype)
        before = W.clone()
        factors = self.factors(W, self.ranks(data, W))
        assert all(factor.dtype is dtype and factor.device == W.device for factor in factors)
        assert torch.equal(W, before)

    @_promise
    @given(st.data())
    def test_a_zero_or_singular_tensor_gives_finite_factors(self, data: st.DataObject) -> None:
        W = self.tensor(data)
        W[W.shape[0] // 2 :] = 0.0
        for tensor in (W, torch.zeros_like(W)):
            factors = self.factors(tensor, self.full_rank(tuple(W.shape)))
            assert all(bool(factor.isfinite().all()) for factor in factors)
            torch.testing.assert_close(self.rebuild(factors), tensor, rtol=1e-9, atol=1e-9)

    @_promise
    @given(st.data())
    def test_ranks_out_of_range_are_refused(self, data: st.DataObject) -> None:
        W = self.tensor(data)
        full = self.full_rank(tuple(W.shape))
        for ranks in (tuple(0 for _ in full), tuple(r + 1 for r in full)):
            with pytest.raises(ValueError, match="outside"):
                self.factors(W, ranks)
