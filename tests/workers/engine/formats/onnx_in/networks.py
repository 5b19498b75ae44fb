"""Small networks of the kinds that people export, each by both of torch's exporters."""

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish())
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 12, 1, bias=False)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(image), 2)
        x = x + self.deep(x)
        x = F.interpolate(self.up(F.relu6(self.point(x))), scale_factor=2.0, mode="nearest")
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Recurrent(nn.Module):
    def __init__(self, kind: Any, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.rnn = kind(8, 6, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(12 if bidirectional else 6, 4)

    def forward(self, ids: Tensor) -> Tensor:
        sequence, _ = self.rnn(self.embedding(ids))
        logits: Tensor = self.head(sequence)
        return logits


class Encoder(nn.Module):
    """A transformer's, with a table of positions and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.positions = nn.Parameter(torch.randn(32, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2.0, -1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return F.linear(F.gelu(x), self.embedding.weight)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.hidden = nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor, weight: Tensor) -> Tensor:
        mixed = (self.embedding(ids) * weight.unsqueeze(-1)).sum(1)
        logits: Tensor = self.head(torch.tanh(self.hidden(mixed)))
        return logits


@dataclass(frozen=True)
class Row:
    """A network, an example for it, which axes vary, and the kinds of layer that have to be found in it."""

    name: str
    make: Any
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    kinds: Mapping[str, int]


_IDS = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(0))
_SEQUENCE = {"ids": {0: "batch", 1: "length"}}
ROWS = [
    Row(
        "convolutional",
        Convolutional,
        {"image": torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))},
        {"image": {0: "batch"}},
        {"conv2d": 3, "conv_transpose2d": 1, "linear": 1},
    ),
    Row(
        "lstm", lambda: Recurrent(nn.LSTM), {"ids": _IDS}, _SEQUENCE, {"embedding": 1, "linear": 1, "lstm": 3}
    ),
    Row(
        "gru",
        lambda: Recurrent(nn.GRU, bidirectional=True),
        {"ids": _IDS},
        _SEQUENCE,
        {"embedding": 1, "linear": 1, "gru": 6},
    ),
    Row(
        "rnn",
        lambda: Recurrent(nn.RNN),
        {"ids": _IDS},
        {"ids": {0: "batch"}},
        {"embedding": 1, "linear": 1, "rnn": 3},
    ),
    Row("encoder", Encoder, {"ids": _IDS}, _SEQUENCE, {"embedding": 1, "linear": 2}),
    Row(
        "bag",
        Bag,
        {"ids": _IDS, "weight": torch.rand(3, 7)},
        {"ids": {0: "batch", 1: "length"}, "weight": {0: "batch", 1: "length"}},
        {"embedding": 1, "linear": 2},
    ),
]


def exported(row: Row, path: Path, *, dynamo: bool) -> nn.Module:
    """The network, written to `path` by one of torch's exporters."""
    torch.manual_seed(0)
    module: nn.Module = row.make().eval()
    names: dict[str, Any] = {"input_names": list(row.inputs), "output_names": ["scores"]}
    shapes: dict[str, Any] = {"dynamic_axes": row.axes}
    if dynamo:
        shapes = {"dynamic_shapes": {
            name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in row.axes.items()
        }}  # fmt: skip
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(row.inputs.values()), path, dynamo=dynamo, external_data=False, **names, **shapes
        )
    return module
