"""A small archive of `.pt2` to forge others from."""

import pytest
import torch
from torch import nn

from tests.workers.engine.hostile import Entries, unpack


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x.view(x.shape[0], 3)) + self.shift
        return y


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    torch.export.save(torch.export.export(Small().eval(), (torch.ones(4, 3),), dynamic_shapes=(batch,)), path)
    return unpack(path)
