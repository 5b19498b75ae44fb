"""Decompositions: ours against tensorly's default and torch's SVD, with the error each reaches."""

import tensorly
import torch
from tensorly.decomposition import partial_tucker
from torch import Tensor

from benchmarks.timing import in_turns, print_table
from workers.engine.decomposition.svd import truncated_svd
from workers.engine.decomposition.tucker import tucker2


def run() -> None:
    """A 512 × 4608 matrix at rank 256, and a 256 × 256 × 3 × 3 kernel at ranks (128, 128)."""
    generator = torch.Generator().manual_seed(0)
    _matrix(torch.randn(512, 4608, generator=generator))
    _kernel(torch.randn(256, 256, 3, 3, generator=generator))


def _matrix(W: Tensor) -> None:
    def stock() -> Tensor:
        U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        return (U[:, :256] * S[:256]) @ Vh[:256]

    def ours() -> Tensor:
        A, B = truncated_svd(W, 256)
        return A @ B

    print_table("SVD of 512 × 4608 at rank 256", in_turns({"ours": ours, "torch.linalg.svd": stock}))
    print(f"  relative error: ours {_error(W, ours()):.4f}, torch {_error(W, stock()):.4f}")


def _kernel(W: Tensor) -> None:
    def stock() -> Tensor:
        with tensorly.backend_context("pytorch"):
            (core, factors), _ = partial_tucker(W.double(), rank=[128, 128], modes=[0, 1])
        return torch.einsum("abhw,oa,ib->oihw", core, *factors)

    def ours() -> Tensor:
        return torch.einsum("abhw,oa,ib->oihw", *tucker2(W, (128, 128)))

    rivals = {"ours": ours, "tensorly, its defaults": stock}
    print_table("Tucker-2 of 256 × 256 × 3 × 3 at (128, 128)", in_turns(rivals, rounds=3))
    print(f"  relative error: ours {_error(W, ours()):.4f}, tensorly {_error(W, stock()):.4f}")


def _error(W: Tensor, approximation: Tensor) -> float:
    return float((W - approximation).norm() / W.norm())
