"""Archives of torch 2.5 to 2.8, whose weights are pickles: read, and never unpickled."""

import pickle
from pathlib import Path

import pytest
import torch

from tests.workers.engine.formats.zoo import ZOO
from tests.workers.engine.hostile import pack, unpack
from tests.workers.engine.old_archives import LAYOUTS
from workers.engine.formats import pt2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["mlp", "residual", "tied", "lstm", "attention"])
def test_the_network_is_that_of_the_same_file_laid_out_anew(
    name: str, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ZOO[name]
    program = case.save(tmp_path / "model.pt2")
    old = pack(tmp_path / "old.pt2", LAYOUTS[layout](unpack(tmp_path / "model.pt2"), program))
    with monkeypatch.context() as context:
        for module, reader in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
            context.delattr(module, reader)
        network, anew = pt2.read(old), pt2.read(tmp_path / "model.pt2")
    inputs = case.draw(3, 5)
    assert torch.equal(network(*inputs), anew(*inputs))
    parameters = dict(network.module.named_parameters())
    assert {path: each.requires_grad for path, each in parameters.items()} == {
        path: each.requires_grad for path, each in anew.module.named_parameters()
    }
