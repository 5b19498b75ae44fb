"""Which errors of a weight matter: those on inputs that occur, toward outputs that the result depends on."""

from dataclasses import dataclass

from torch import Tensor

from workers.engine.decomposition.whitening import Root, whitened


@dataclass(frozen=True)
class Weighting:
    """What a calibration knows about a weight W (m, n).

    An error Δ of the weight counts as ‖Rᵀ Δ L‖², where `right` is the root L (n, n) of the inputs' second
    moment (centred on `mean` (n,) where the bias can take the mean up) and `left` the root R (m, m) of the
    gradients'. Either may be None: the identity. An embedding's `right` is a diagonal, (n,); a
    convolution's is over whole patches, C_in·∏k, or over its input channels alone. `positions` is how often
    one example uses the weight; None where no gradients were seen.
    """

    right: Root | None = None
    left: Root | None = None
    mean: Tensor | None = None
    positions: float | None = None
    warnings: tuple[str, ...] = ()

    def importance(self, W: Tensor) -> float | None:
        """½ · positions · ‖Rᵀ W L‖²: the divergence, in nats for one example, if all of W (m, n) were lost
        (second-order, positions taken as independent: Kronecker-factored curvature, Martens & Grosse
        2015)."""
        if self.positions is None:
            return None
        return 0.5 * self.positions * float(self.apply(W).square().sum())

    def apply(self, W: Tensor) -> Tensor:
        """Rᵀ W L in float64, (m, n); channels alone weight every element of the kernel alike."""
        return whitened(W, self.right, self.left)


PLAIN = Weighting()
