"""Small networks of every kind that people upload, as torch.export sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = F.relu(x + self.block(x))
        logits: Tensor = self.fc(self.pool(x).mean((2, 3)))
        return logits


class Recurrent(nn.Module):
    def __init__(self, cell: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.rnn = kind(8, 6, num_layers=2, batch_first=True, bidirectional=cell == "gru", dropout=0.2)
        self.head = nn.Linear(12 if cell == "gru" else 6, 20)

    def forward(self, ids: Tensor) -> Tensor:
        output, _ = self.rnn(self.embedding(ids))
        logits: Tensor = self.head(output[:, -1])
        return logits


class Scanned(nn.Module):
    """A recurrent cell of its own, as a scan over time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.decay = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def step(h: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(self.inner(h) + gate) * self.decay
            return h, F.dropout(h, 0.5, self.training) * 1.0

        last, sequence = scan(step, torch.zeros(x.shape[0], 6), x.transpose(0, 1))
        return sequence.transpose(0, 1), last


class Choice(nn.Module):
    """One of two layers, by the sign of the inputs' sum."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(6, 6)
        self.yes = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.both(x)
        chosen: Tensor = torch.cond(
            x.sum() > 0, lambda x: self.yes(x).relu(), lambda x: self.both(x).sin(), (x,)
        )
        return chosen


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask == 0, float("-inf"))[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return x + F.gelu(self.out(mixed.transpose(1, 2).flatten(2)), approximate="tanh")


class Packed(nn.Module):
    """Masks as language models make theirs: no position sees the future, nor another document's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.rand(8))

    def forward(self, positions: Tensor) -> Tensor:
        documents = (positions.diff(prepend=positions[:, :1] - 1, dim=1) != 1).cumsum(1)
        at = torch.arange(positions.shape[1])
        mask = (at[:, None] >= at).__and__(documents[:, :, None] == documents[:, None, :])
        angles = positions[..., None].to(torch.float32) * self.frequencies.to(device="cpu")
        return angles.cos() * mask.to(torch.float32).sum(-1, keepdim=True)


class Conv1D(nn.Module):
    """GPT-2's layer: the weight is (in, out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(*x.shape[:-1], -1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.inner = Conv1D(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.randn(16, 8), persistent=False)
        self.register_buffer("causal", torch.ones(16, 16).tril().bool())
        self.scale = torch.tensor([0.5, 2.0])

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.embedding(ids) + self.positions[torch.arange(length)]  # type: ignore[index]
        scores = (x @ x.mT).masked_fill(~self.causal[:length, :length], float("-inf"))  # type: ignore[index]
        logits: Tensor = self.head(self.inner(scores.softmax(-1) @ x)) * self.scale.sum()
        return logits


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bilinear = nn.Bilinear(4, 3, 6)
        self.gate = nn.Linear(4, 6)

    def forward(self, input: Tensor, context: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:  # noqa: A002
        joint = self.bilinear(input, context)
        first, second = (joint * torch.sigmoid(self.gate(input))).split([2, 4], dim=-1)
        return first, second.amax(-1), tuple(input.unbind(1))


class Upsampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.same = nn.Conv2d(4, 4, 3, padding="same", dilation=2)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.same(self.down(x))))
        return torch.cat([self.up(y), F.interpolate(y, scale_factor=2.0, mode="nearest")], 1)


class InPlace(nn.Module):
    """Writes into its input and into a padded copy."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu_()
        padded = torch.zeros(y.shape[0], 6)
        padded[:, :4] = y
        return padded


def depthwise() -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, bias=False, padding=1), nn.BatchNorm2d(4), nn.Hardswish()
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3))
    return nn.Sequential(features, nn.Conv2d(4, 8, 1), head)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(), nn.Linear(16, 3), nn.Softmax(-1))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.ELU(), nn.AvgPool1d(2), nn.InstanceNorm1d(4, affine=True))


def volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.PReLU(), nn.MaxPool3d(2))


class Pyramid(nn.Module):
    """Halves pictures twice and puts what it sees then beside the whole: sides are multiples of four."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1))
        self.out = nn.Conv2d(19, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.cat([x, F.interpolate(self.down(x), scale_factor=4.0)], 1))
        return out


@dataclass(frozen=True)
class Case:
    """A network, how to draw its inputs for a batch and a length, and its variable axes."""

    build: Callable[[], nn.Module]
    draw: Callable[[int, int], tuple[Tensor, ...]]
    variable: tuple[dict[int, Any], ...]

    def program(self, *, train: bool = False) -> ExportedProgram:
        torch.manual_seed(0)
        module = self.build().train(train)
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
        return torch.export.export(module, self.draw(3, 5), dynamic_shapes=self.variable)

    def save(self, path: Path) -> ExportedProgram:
        program = self.program()
        torch.export.save(program, path)
        return program


BATCH = Dim("batch", min=1, max=64)
LENGTH = Dim("length", min=2, max=12)


def ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 20, (batch, length))


ZOO = {
    "residual": Case(Residual, lambda b, _: (torch.randn(b, 3, 8, 8),), ({0: BATCH},)),
    "depthwise": Case(depthwise, lambda b, _: (torch.randn(b, 4, 8, 8),), ({0: BATCH},)),
    "mlp": Case(mlp, lambda b, _: (torch.randn(b, 6),), ({0: BATCH},)),
    "fixed_mlp": Case(mlp, lambda *_: (torch.randn(2, 6),), ({},)),
    "lstm": Case(lambda: Recurrent("lstm"), lambda b, _: (ids(b, 5),), ({0: BATCH},)),
    "gru": Case(lambda: Recurrent("gru"), lambda b, _: (ids(b, 5),), ({0: BATCH},)),
    "scan": Case(Scanned, lambda b, n: (torch.randn(b, n, 6),), ({0: BATCH, 1: LENGTH},)),
    "choice": Case(Choice, lambda b, _: (torch.randn(b, 6),), ({0: BATCH},)),
    "attention": Case(
        Attention,
        lambda b, n: (torch.randn(b, n, 16), torch.ones(b, n, dtype=torch.int64)),
        ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH}),
    ),
    "tied": Case(Tied, lambda b, n: (ids(b, n),), ({0: BATCH, 1: LENGTH},)),
    "packed": Case(Packed, lambda b, n: (ids(b, n),), ({0: BATCH, 1: LENGTH},)),
    "several": Case(Several, lambda b, _: (torch.randn(b, 4), torch.randn(b, 3)), ({0: BATCH}, {0: BATCH})),
    "upsampling": Case(
        Upsampling,
        lambda b, n: (torch.randn(b, 1, 2 * n, 8),),
        ({0: BATCH, 2: Dim("height", min=4, max=64)},),
    ),
    "pyramid": Case(
        Pyramid,
        lambda b, n: (torch.randn(b, 3, 4 * n, 20),),
        ({0: BATCH, 2: 4 * LENGTH, 3: 4 * Dim("width")},),
    ),
    "convolutions": Case(convolutions, lambda b, n: (torch.randn(b, 2, 4 * n),), ({0: BATCH},)),
    "volume": Case(volume, lambda b, _: (torch.randn(b, 1, 6, 6, 6),), ({0: BATCH},)),
    "in_place": Case(InPlace, lambda b, _: (torch.randn(b, 4),), ({0: BATCH},)),
    "half": Case(
        lambda: mlp().to(torch.bfloat16), lambda b, _: (torch.randn(b, 6).bfloat16(),), ({0: BATCH},)
    ),
    "channels_last": Case(
        lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        lambda b, _: (torch.randn(b, 3, 8, 8),),
        ({0: BATCH},),
    ),
}
