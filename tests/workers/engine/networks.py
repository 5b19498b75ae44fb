"""Small networks to test on."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.engine.formats import pt2
from workers.engine.graph.network import Dimension, Input, Network, trace

BATCH = Dimension("batch", 1, 512)
LENGTH = Dimension("length", 1, 64, example=6)
_CELLS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "tanh": nn.RNN,
    "relu": functools.partial(nn.RNN, nonlinearity="relu"),
    "projected": functools.partial(nn.LSTM, proj_size=3),
}


def image_network(module: nn.Module, channels: int = 3, size: int = 8) -> Network:
    """A module over (batch, channels, size, size)."""
    return trace(module.eval(), (Input("x", torch.float32, (BATCH, channels, size, size)),))


def vector_network(module: nn.Module, *shape: int) -> Network:
    """A module over (batch, *shape)."""
    return trace(module.eval(), (Input("x", torch.float32, (BATCH, *shape)),))


def token_network(module: nn.Module, length: int | Dimension = LENGTH) -> Network:
    """A module over token ids (batch, length)."""
    return trace(module.eval(), (Input("ids", torch.int64, (BATCH, length)),))


def sequence_network(module: nn.Module, width: int) -> Network:
    """A module over (batch, length, width), batch and length variable."""
    return trace(module.eval(), (Input("x", torch.float32, (BATCH, LENGTH, width)),))


def draw_all(network: Network, batch: int, length: int = LENGTH.example) -> list[Tensor]:
    """All inputs of a network, whatever else varies longer by one: normal noise, or ids below 11; the same on
    every call."""
    generator = torch.Generator().manual_seed(3)
    lengths = {BATCH.symbol: batch, LENGTH.symbol: length}
    sizes = [
        [axis if isinstance(axis, int) else lengths.get(axis.symbol, length + 1) for axis in spec.shape]
        for spec in network.inputs
    ]
    return [
        torch.randint(11, size, generator=generator)
        if spec.dtype is torch.int64
        else torch.randn(size, generator=generator)
        for spec, size in zip(network.inputs, sizes, strict=True)
    ]


def recurrent_network(
    cell: str,
    *,
    given: bool = False,
    sequence_only: bool = False,
    width: int = 5,
    hidden: int = 7,
    **options: Any,
) -> Network:
    """A recurrent stack over (batch, length, width), or (length, batch, width) without `batch_first`.

    Batch and length vary. `given` makes its initial states inputs; `sequence_only` drops its last states.
    """
    seeded()
    options = {"batch_first": True, "num_layers": 1, **options}
    module = Recurrent(_CELLS[cell](width, hidden, **options), sequence_only)
    rows = options["num_layers"] * (2 if options.get("bidirectional") else 1)
    widths = {"lstm": [hidden, hidden], "projected": [3, hidden]}.get(cell, [hidden]) if given else []
    shapes = [(BATCH, LENGTH, width) if options["batch_first"] else (LENGTH, BATCH, width)]
    shapes += [(rows, BATCH, size) for size in widths]
    return trace(
        module.eval(), [Input(name, torch.float32, shape) for name, shape in zip("xhc", shapes, strict=False)]
    )


def seeded(module_seed: int = 0) -> None:
    """Make the weights of the next module reproducible."""
    torch.manual_seed(module_seed)


class Convolutional(nn.Module):
    """Conv–BatchNorm–ReLU twice, a strided 1×1, pooling, a classifier."""

    def __init__(self, width: int = 32, classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.shortcut = nn.Conv2d(width, 2 * width, 1, stride=2)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shortcut(self.block(self.stem(x))).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Recurrent(nn.Module):
    """A recurrent stack that returns its sequence and its last states, or its sequence alone."""

    def __init__(self, rnn: nn.RNNBase, sequence_only: bool) -> None:
        super().__init__()
        self.rnn = rnn
        self.sequence_only = sequence_only

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> Any:
        results = self.rnn(x, h if c is None else (h, c))
        return results[0] if self.sequence_only else results


def write_example(folder: Path, rows: Mapping[str, int]) -> None:
    """`model.pt2`, and an `.npz` of so many rows per role: noise that the network labelled itself."""
    seeded()
    network = image_network(Convolutional(width=32))
    pt2.write(network, folder / "model.pt2")
    for role, count in rows.items():
        x = np.random.default_rng(count).standard_normal((count, 3, 8, 8)).astype(np.float32)
        np.savez(folder / f"{role}.npz", x=x, target=network(torch.from_numpy(x)).argmax(-1).numpy())


class HuggingFaceLinear(nn.Module):
    """y = addmm(b, x, W) with W (inputs, outputs), as GPT-2 writes it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class ConstantProduct(nn.Module):
    """y = x W."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class TiedTokens(nn.Module):
    """An embedding, something between, and a head that is tied to the embedding."""

    def __init__(self, vocabulary: int, width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, vocabulary, bias=bias)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.embedding(ids)))
        return out


class Attention(nn.Module):
    """Attention with projections of their own for queries, keys and values: to a context where one is given,
    else to itself. `masked` leaves some queries nothing to see."""

    def __init__(self, width: int, heads: int, *, bias: bool = True, masked: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.masked = masked
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=bias) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        q, k, v = (self.split(values) for values in (self.q(x), self.k(source), self.v(source)))
        mask = (x.mean(-1) > 0)[:, None, :, None] if self.masked else None
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.o(mixed.transpose(1, 2).contiguous().view(*x.shape[:2], -1))
        return out

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FusedAttention(nn.Module):
    """Causal self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.o = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return out
