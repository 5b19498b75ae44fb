"""A case that takes no time to speak of."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.workers.engine.networks import seeded, vector_network
from workers.engine.formats import pt2


def write_case(folder: Path, rows: int) -> Path:
    """A network of linear layers, as many rows to fit on, and half of that to test on, which it labelled."""
    seeded()
    layers = [nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4)]
    network = vector_network(nn.Sequential(*layers), 16)
    folder.mkdir(exist_ok=True)
    pt2.write(network, folder / "model.pt2")
    for role, count in (("train", rows), ("test", rows // 2)):
        x = torch.randn(count, 16, generator=torch.Generator().manual_seed(count))
        np.savez(folder / f"{role}.npz", x=x.numpy(), target=network(x).argmax(-1).numpy())
    return folder
