"""Well-known layouts with random weights: for times, which do not depend on what the weights are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from workers.engine.formats import pt2
from workers.engine.graph.network import Dimension, Input, trace

_SIZE = 224


def write(name: str, folder: Path, rows: int) -> dict[str, Path]:
    """A network and rows of noise for it, as the files of a job by role."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    shape = (64, 256) if name == "transformer" else (3, _SIZE, _SIZE)
    inputs = [Input("x", torch.float32, (Dimension("batch", example=2), *shape))]
    files = {"model": folder / "model.pt2", "train": folder / "train.npz", "test": folder / "test.npz"}
    pt2.write(trace(LAYOUTS[name]().eval(), inputs), files["model"])
    noise = np.random.default_rng(0).standard_normal((2 * rows, *shape)).astype(np.float32)
    np.savez(files["train"], x=noise[:rows])
    np.savez(files["test"], x=noise[rows : rows + 8])
    return files


class _Block(nn.Module):
    """Convolutions with a shortcut around them: two 3×3, or 1×1, 3×3, 1×1 (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        kernels = [(width, 1), (width, 3), (outputs, 1)] if bottleneck else [(width, 3), (width, 3)]
        steps: list[nn.Module] = []
        channels = inputs
        for place, (filters, size) in enumerate(kernels):
            step = stride if place == len(kernels) - 2 else 1
            steps += [
                nn.Conv2d(channels, filters, size, step, size // 2, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
            channels = filters
        self.steps = nn.Sequential(*steps[:-1])
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.steps(x) + self.shortcut(x)).relu()
        return out


def _resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Module:
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    layers: list[nn.Module] = list(stem)
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for place in range(depth):
            stride = 2 if stage and not place else 1
            layers.append(_Block(channels, width, stride, bottleneck=bottleneck))
            channels = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class _Encoder(nn.Module):
    """A layer of a transformer: attention of eight heads, then two linear layers, each with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (part(y).unflatten(-1, (8, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(nn.functional.gelu(self.up(self.between(x))))
        return out


LAYOUTS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: _resnet((2, 2, 2, 2), bottleneck=False),
    "ResNet-50": lambda: _resnet((3, 4, 6, 3), bottleneck=True),
    "transformer": lambda: nn.Sequential(*(_Encoder(256) for _ in range(6)), nn.Linear(256, 64)),
}
