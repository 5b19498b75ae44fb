"""CP: 1×1, a depthwise k×k, 1×1 (Lebedev et al. 2015)."""

from collections.abc import Iterator
from math import prod

from workers.engine.decomposition.cp import as_convolutions, cp, cp_errors, full_rank
from workers.engine.decomposition.refine import Ends
from workers.engine.decomposition.whitening import Root
from workers.engine.layers.conv.chain import Chain, Stage, pointwise
from workers.engine.layers.conv.factorization import ChainFactorization, Fit, Rank
from workers.engine.layers.conv.layer import ConvLayer

# Every rank needs a fit of its own: a handful, as shares of the rank whose factors cost what the kernel does.
_SHARES = (0.15, 0.3, 0.5, 0.75)
_RIDGE = 1e-3  # of a fit that is not degenerate


class CpFactorization(ChainFactorization):
    """Rank-one terms over outputs, inputs and taps, the taps as one mode. Ungrouped, not transposed."""

    method = "cp"
    ends = Ends(outer=2, inner=0)

    def __init__(self, layer: ConvLayer) -> None:
        super().__init__(layer)
        self._errors: dict[int, float] = {}

    @property
    def _shape(self) -> tuple[int, int, int]:
        """(C_out, C_in, ∏k)."""
        _, channels_out, channels_in, *kernel = self.layer.shape
        return channels_out, channels_in, prod(kernel)

    @property
    def max_rank(self) -> Rank:
        """No kernel of this shape needs more terms."""
        return (full_rank(self._shape),)

    def ranks(self, step: int) -> Iterator[Rank]:
        """A handful of multiples of `step`."""
        break_even = prod(self._shape) / sum(self._shape)
        aligned = {round(share * break_even / step) * step for share in _SHARES}
        return ((rank,) for rank in sorted(aligned) if 1 <= rank <= self.max_rank[0])

    def chain(self, rank: Rank) -> Chain:
        """Three stages, the middle one with a group for each term."""
        channels_out, channels_in, _ = self._shape
        (terms,) = rank
        return (
            pointwise(self.layer, "factor_in", terms, channels_in),
            Stage("taps", (terms, 1, *self.layer.kernel), self.layer.axes, groups=terms),
            pointwise(self.layer, "factor_out", channels_out, terms),
        )

    def predict(self, rank: Rank) -> float:
        """What a few sweeps reach: the fit comes to that or less."""
        [terms] = rank
        if terms not in self._errors:
            kernel = self.layer.kernels[0].flatten(2)
            [self._errors[terms]] = cp_errors(kernel, [terms], roots=self._roots)
        return self._errors[terms]

    def decompose(self, group: int, rank: Rank) -> Fit:
        """The three kernels, in order; a degenerate fit is made anew with a larger ridge, and says so."""
        kernel = self.layer.kernels[group].flatten(2)
        found = cp(kernel, rank[0], ridge=_RIDGE, roots=self._roots)
        kernels = as_convolutions(found.factors, self.layer.kernel)
        if found.ridge <= _RIDGE:
            return Fit(kernels)
        warning = (
            f"a CP fit of {rank[0]} terms was degenerate: it took a ridge of {found.ridge:g} to bound it"
        )
        return Fit(kernels, (warning,))

    @property
    def _roots(self) -> tuple[Root | None, Root | None]:
        return self.layer.weigh().left, self.right(())
