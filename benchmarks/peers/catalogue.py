"""Who is compared."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A package with its adapter `adapters/<module>.py` and its pinned environment
    `requirements/peers/<module>.txt`."""

    package: str
    module: str
    methods: tuple[str, ...]


OURS = "Rankfold"
PEERS = (
    Peer("aimet-torch", "aimet", ("spatial SVD", "weight SVD")),
    Peer("fasterai", "fasterai", ("Tucker", "SVD")),
    Peer("tensorly-torch", "tensorly_torch", ("Tucker",)),
    Peer("greenformer", "greenformer", ("SVD",)),
    Peer("torch-pruning", "torch_pruning", ("channel pruning",)),
)
