"""Train the example network on Fashion-MNIST and write `model.pt2`, `train.npz` and `test.npz`.

    python examples/fashion/make_example.py FOLDER

FOLDER holds the four files of Fashion-MNIST as published (`train-images-idx3-ubyte.gz`, …). On one core the
training takes a few minutes; the same seed, images, machine and torch give the same network.
"""

import argparse
import gzip
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10
SIDE = 28
MEAN, STD = 0.2860, 0.3530  # of the training pixels in [0, 1]


@dataclass(frozen=True)
class Images:
    """Normalised images, shape (n, 1, 28, 28) float32, and their labels, shape (n,) int64."""

    x: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def first(self, count: int) -> "Images":
        """The first `count` images."""
        return Images(self.x[:count], self.target[:count])

    def balanced(self, count: int) -> "Images":
        """About `count` images in their order: the same number of every class."""
        share = min(count // CLASSES, int(self.target.bincount(minlength=CLASSES).min()))
        rows = torch.cat([(self.target == label).nonzero()[:share, 0] for label in range(CLASSES)])
        rows = rows.sort().values
        return Images(self.x[rows], self.target[rows])


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in a gzipped IDX file; raises `ValueError` for anything else."""
    with gzip.open(path) as file:
        content = file.read()
    zeros, dtype, axes = content[:2], content[2], content[3]
    if zeros != b"\0\0" or dtype != 8:
        raise ValueError(f"{path.name} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def load(folder: Path, prefix: str) -> Images:
    """The images of one split, normalised; `prefix` is `train` or `t10k`."""
    pixels = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").astype(np.int64)
    return Images(torch.from_numpy((pixels - MEAN) / STD)[:, None], torch.from_numpy(labels))


class Block(nn.Module):
    """Two 3×3 convolutions with BatchNorm around a shortcut; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) → (n, outputs, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class FashionNet(nn.Module):
    """A small residual network: widths 32, 64, 128 at 28², 14², 7²."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.layers = nn.Sequential(Block(32, 64, 2), Block(64, 128, 2), Block(128, 128, 1))
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Images of shape (n, 1, 28, 28) → logits of shape (n, 10)."""
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


def augment(x: Tensor, reach: int = 1) -> Tensor:
    """Every image mirrored with probability one half and shifted by up to `reach` pixels."""
    padded = F.pad(x, (reach,) * 4, value=-MEAN / STD)[:, 0]
    span = torch.arange(SIDE)
    rows = torch.randint(2 * reach + 1, (len(x), 1)) + span
    columns = torch.randint(2 * reach + 1, (len(x), 1)) + span
    columns = torch.where(torch.rand(len(x), 1) < 0.5, columns.flip(1), columns)
    picks = torch.arange(len(x))
    return padded[picks[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def batches(images: Images, size: int) -> Iterator[Images]:
    """One epoch in a random order."""
    for rows in torch.randperm(len(images)).split(size):
        yield Images(images.x[rows], images.target[rows])


def train(model: nn.Module, images: Images, epochs: int, batch_size: int = 64) -> None:
    """Fit `model` in place: SGD, one learning-rate cycle, smoothed labels; prints a line per epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps, pct_start=0.2)
    started = time.monotonic()
    model.train().to(memory_format=torch.channels_last)  # a fifth faster on CPUs
    for epoch in range(epochs):
        total = 0.0
        for batch in batches(images, batch_size):
            x = augment(batch.x).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), batch.target, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        seconds = time.monotonic() - started
        print(f"epoch {epoch + 1:2}/{epochs}  loss {total / len(images):.4f}  {seconds:.0f} s", flush=True)


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """The fraction of images whose class is predicted right."""
    predicted = torch.cat([model(chunk).argmax(1) for chunk in images.x.split(500)])
    return (predicted == images.target).double().mean().item()


def write(model: nn.Module, fit: Images, test: Images, out: Path) -> None:
    """The three files, into `out`; the batch of the exported program is free."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (test.x[:3].clone(),), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(program, out / "model.pt2")
    for name, images in (("train", fit), ("test", test)):
        x = images.x.numpy().astype(np.float16)  # exact enough for pixels of eight bits, and half the size
        np.savez_compressed(out / f"{name}.npz", x=x, target=images.target.numpy())


def main() -> None:
    """Read the options, train, say how good it is, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the four IDX files lie")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the results go")
    parser.add_argument("--images", type=int, default=10_000, help="training images the network sees")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    fit, test = load(options.folder, "train").first(options.images), load(options.folder, "t10k")
    model = FashionNet()
    train(model, fit, options.epochs)
    model.eval().to(memory_format=torch.contiguous_format)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, top-1 {accuracy(model, test):.4f}")
    options.out.mkdir(parents=True, exist_ok=True)
    write(model, fit.balanced(6_000), test.balanced(2_000), options.out)


if __name__ == "__main__":
    main()
