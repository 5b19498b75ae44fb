"""Which errors of a weight matter: those on inputs that occur, toward outputs that the result depends on."""

from dataclasses import dataclass

from torch import Tensor

from workers.engine.decomposition.whitening import Root


@dataclass(frozen=True)
class Weighting:
    """What a calibration knows about a weight W (m, n).

    An error Δ of the weight counts as ‖Rᵀ Δ L‖², where `right` is the root L (n, n) of the inputs' second
    moment (centred on `mean` (n,) where the bias can take the mean up) and `left` the root R (m, m) of the
    gradients'. Either may be None: the identity. An embedding's `right` is a diagonal, (n,); a
    convolution's is over whole patches, C_in·∏k, or over its input channels alone.
    """

    right: Root | None = None
    left: Root | None = None
    mean: Tensor | None = None
    warnings: tuple[str, ...] = ()


PLAIN = Weighting()
