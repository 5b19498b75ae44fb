"""Decompositions: ours against tensorly's and torch's, one run each, with the error each reaches."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import tensorly
import torch
from tensorly.decomposition import parafac, partial_tucker, tucker
from tensorly.decomposition import tensor_train as tensorly_train
from torch import Tensor

from workers.engine.decomposition.cp import cp
from workers.engine.decomposition.refine import Ends, refine
from workers.engine.decomposition.svd import truncated_svd
from workers.engine.decomposition.tensor_train import rebuild, tensor_train
from workers.engine.decomposition.tucker import full_tucker, tucker2
from workers.engine.decomposition.whitening import Root, root, shrink, whitened

Rivals = Mapping[str, Callable[[], Tensor]]


def run() -> None:
    """SVD, Tucker on two modes and on four, Tucker refined under its patches, CP, and a tensor train."""
    generator = torch.Generator().manual_seed(0)
    _matrix(torch.randn(4096, 4096, generator=generator), 1024)
    kernel = torch.randn(512, 512, 3, 3, generator=generator)
    _tucker2(kernel, [256, 256])
    _full_tucker(kernel, [256, 256, 2, 2])
    _refinement(torch.randn(128, 128, 3, 3, generator=generator), _patches(128, generator))
    for channels, rank in ((64, 32), (128, 64), (128, 256)):
        _cp(_uneven(channels), rank, sweeps=50)
    _train(torch.randn(32768, 512, generator=generator), (32, 32, 32), (8, 8, 8), (128, 128))


def _matrix(W: Tensor, rank: int) -> None:
    def ours() -> Tensor:
        A, B = truncated_svd(W, rank)
        return A @ B

    def exact() -> Tensor:
        U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
        return (U[:, :rank] * S[:rank]) @ Vh[:rank]

    def randomised() -> Tensor:
        U, S, V = torch.svd_lowrank(W, q=rank, niter=2)
        return (U * S) @ V.T

    rivals = {"ours": ours, "torch.linalg.svd": exact, "torch.svd_lowrank": randomised}
    _compare(f"SVD of {_named(W)} at rank {rank}", W, rivals)


def _tucker2(W: Tensor, ranks: list[int]) -> None:
    def ours() -> Tensor:
        core, *factors = tucker2(W, (ranks[0], ranks[1]))
        return _multiply(core, factors)

    def stock(svd: str) -> Tensor:
        with tensorly.backend_context("pytorch"):
            (core, factors), _ = partial_tucker(W.double(), rank=ranks, modes=[0, 1], svd=svd)
        return _multiply(core, factors)

    rivals = {
        "ours": ours,
        "tensorly, its defaults": lambda: stock("truncated_svd"),
        "tensorly, symeig": lambda: stock("symeig_svd"),
    }
    _compare(f"Tucker-2 of {_named(W)} at {ranks}", W, rivals)


def _full_tucker(W: Tensor, ranks: list[int]) -> None:
    def ours() -> Tensor:
        core, *factors = full_tucker(W, ranks)
        return _multiply(core, factors)

    def stock() -> Tensor:
        with tensorly.backend_context("pytorch"):
            core, factors = tucker(W.double(), rank=ranks)
        return _multiply(core, factors)

    rivals = {"ours": ours, "tensorly, its defaults": stock}
    _compare(f"Tucker on every mode of {_named(W)} at {ranks}", W, rivals)


def _refinement(W: Tensor, patches: Tensor) -> None:
    """Plain, by the channels' second moment, and refined from there by that of whole patches."""
    ranks = (W.shape[0] // 2, W.shape[1] // 2)
    C = patches.T @ patches / len(patches)
    right = root(shrink(C, 0.01))
    channels = root(C.reshape(W.shape[1], 9, W.shape[1], 9).diagonal(dim1=1, dim2=3).sum(-1))

    def rebuild(parts: Sequence[Tensor]) -> Tensor:
        first, core, last = parts
        return _multiply(core, (last, first.flatten(1).T))

    def refined() -> Tensor:
        core, last, first = tucker2(W, ranks, right=channels)
        start = (first.T[..., None, None], core, last)
        return rebuild(refine(start, rebuild, W, right=right, ends=Ends(outer=2, inner=0)))

    def closed(weight: Root | None) -> Tensor:
        core, *factors = tucker2(W, ranks, right=weight)
        return _multiply(core, factors)

    rivals = {
        "plain": lambda: closed(None),
        "of the channels' moment": lambda: closed(channels),
        "refined by the patches' moment": refined,
    }
    _compare(f"Output error of Tucker-2 of {_named(W)} at {ranks}", W, rivals, right)


def _cp(W: Tensor, rank: int, sweeps: int) -> None:
    """The error that each start reaches, and how much larger than W the components are that add up to it."""
    found: dict[str, Sequence[Tensor]] = {}

    def ours(starts: int) -> Sequence[Tensor]:
        return cp(W, rank, starts=starts, sweeps=sweeps).factors

    def stock(start: str, linesearch: bool = False) -> Sequence[Tensor]:
        with tensorly.backend_context("pytorch"):
            _, factors = parafac(
                W, rank, sweeps, init=start, linesearch=linesearch, tol=1e-12, random_state=0
            )
        return factors

    def outer(name: str, fit: Callable[[], Sequence[Tensor]]) -> Tensor:
        found[name] = fit()
        return torch.einsum("or,ir,kr->oik", *found[name])

    fits = {
        "ours": lambda: ours(2),
        "ours, from the slices alone": lambda: ours(1),
        "tensorly, from SVDs": lambda: stock("svd"),
        "tensorly, from SVDs, line search": lambda: stock("svd", linesearch=True),
        "tensorly, at random": lambda: stock("random"),
    }
    rivals = {name: partial(outer, name, fit) for name, fit in fits.items()}
    _compare(f"CP of {_named(W)} at rank {rank}, {sweeps} sweeps", W, rivals)
    for name, factors in found.items():
        components = torch.stack([factor.norm(dim=0) for factor in factors]).prod(0)
        print(f"  {name:36} degeneracy {float(components.square().sum() / W.square().sum()):8.2f}")


def _uneven(channels: int) -> Tensor:
    """A kernel (C, C, 9) whose spectra fall by 30, like a trained one's."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(channels, channels, 9, generator=generator, dtype=torch.float64)
    mixing = torch.randn(2, channels, channels, generator=generator, dtype=torch.float64)
    falling = torch.linalg.qr(mixing).Q * torch.logspace(0, -1.5, channels, dtype=torch.float64)
    return torch.einsum("abk,oa,ib->oik", W, *falling)


def _train(W: Tensor, rows: tuple[int, ...], columns: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    sizes = [m * n for m, n in zip(rows, columns, strict=True)]

    def ours() -> Tensor:
        return rebuild(tensor_train(W, rows, columns, ranks))

    def stock() -> Tensor:
        digits = W.double().reshape(*rows, *columns).permute(0, 3, 1, 4, 2, 5).reshape(sizes)
        with tensorly.backend_context("pytorch"):
            cores = tensorly_train(digits, rank=[1, *ranks, 1])
        pairs = zip(cores, rows, columns, strict=True)
        return rebuild([core.reshape(len(core), m, n, -1) for core, m, n in pairs])

    _compare(f"Tensor train of {_named(W)} at {ranks}", W, {"ours": ours, "tensorly": stock})


def _patches(channels: int, generator: torch.Generator) -> Tensor:
    """The 3 × 3 patches of smooth images with correlated channels: (patches, channels · 9)."""
    mixing = torch.randn(channels, channels, generator=generator) * torch.logspace(0, -1.5, channels)
    noise = torch.randn(60, channels, 16, 16, generator=generator)
    images = torch.einsum("oi,bihw->bohw", mixing, torch.nn.functional.avg_pool2d(noise, 3, 1)).relu()
    return torch.nn.functional.unfold(images, 3).transpose(1, 2).flatten(0, 1).double()


def _compare(title: str, W: Tensor, rivals: Rivals, right: Root | None = None) -> None:
    print(f"\n{title}")
    norm = whitened(W.flatten(1), right, None).norm()
    for name, rival in rivals.items():
        start = time.perf_counter()
        approximation = rival()
        seconds = time.perf_counter() - start
        error = whitened((W - approximation).flatten(1), right, None).norm() / norm
        print(f"  {name:36} {seconds:8.2f} s   relative error {error:.4f}")


def _multiply(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    for mode, factor in enumerate(factors):
        core = torch.tensordot(factor, core, dims=([1], [mode])).movedim(0, mode)
    return core


def _named(W: Tensor) -> str:
    return "×".join(map(str, W.shape))
