"""Written `.pt2` files: stock torch opens them, and they tell nothing about this machine."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.workers.engine.formats.zoo import ZOO
from tests.workers.engine.hostile import unpack
from workers.engine.formats import pt2
from workers.engine.graph.network import Dimension, Input, Network, trace

# Neither our package nor the tests can be imported where the artifact is opened.
_STOCK = """
import sys
sys.modules.update(dict.fromkeys(("workers", "app", "tests")))
import torch
for folder in sys.argv[1:]:
    module = torch.export.load(f"{folder}/written.pt2").module()
    for inputs, expected in torch.load(f"{folder}/expected.pt", weights_only=True):
        leaves = torch.utils._pytree.tree_leaves(module(*inputs))
        print(len(leaves) == len(expected) and all(map(torch.equal, leaves, expected)))
"""


def network_of(name: str, folder: Path) -> Network:
    ZOO[name].save(folder / "model.pt2")
    return pt2.read(folder / "model.pt2")


def test_stock_torch_opens_what_is_written_in_a_process_without_this_package(tmp_path: Path) -> None:
    names = ["residual", "lstm", "scan", "choice", "attention", "tied", "several", "in_place"]
    for name in names:
        (tmp_path / name).mkdir()
        network = network_of(name, tmp_path / name)
        pt2.write(network, tmp_path / name / "written.pt2")
        draws = [ZOO[name].draw(batch, 5) for batch in (1, 4)]
        pairs = [(inputs, [leaf.detach() for leaf in tree_leaves(network(*inputs))]) for inputs in draws]
        torch.save(pairs, tmp_path / name / "expected.pt")
    command = [sys.executable, "-c", _STOCK, *(str(tmp_path / name) for name in names)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert output.split() == ["True"] * 2 * len(names)


@pytest.mark.parametrize(
    "name", ["residual", "gru", "scan", "choice", "tied", "several", "half", "channels_last"]
)
def test_what_is_written_reads_back_the_same(name: str, tmp_path: Path) -> None:
    network = network_of(name, tmp_path)
    pt2.write(network, tmp_path / "written.pt2")
    again = pt2.read(tmp_path / "written.pt2")
    inputs = ZOO[name].draw(4, 5)
    assert again.inputs == network.inputs
    assert list(again.module.state_dict()) == list(network.module.state_dict())
    assert len(list(again.module.parameters())) == len(list(network.module.parameters()))
    assert all(map(torch.equal, tree_leaves(again(*inputs)), tree_leaves(network(*inputs))))


@pytest.mark.parametrize("case", ["residual", "scan"])
def test_no_path_and_no_example_input_is_in_the_file(case: str, tmp_path: Path) -> None:
    pt2.write(network_of(case, tmp_path), tmp_path / "written.pt2")
    for name, data in unpack(tmp_path / "written.pt2").items():
        if "weight_" in name:
            continue
        forbidden = [str(Path(pt2.__file__).parents[3]), str(Path(torch.__file__).parents[1]), str(tmp_path)]
        forbidden += [sys.prefix, ".py", "stack_trace", "workers", "File "]
        assert [text for text in forbidden if text.encode() in data] == [], name
        if "sample_inputs" in name:
            assert data == b""


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    network = network_of("attention", tmp_path)
    written = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        pt2.write(network, tmp_path / folder / "written.pt2")
        written.append((tmp_path / folder / "written.pt2").read_bytes())
    assert written[0] == written[1]


def test_writing_changes_nothing(tmp_path: Path) -> None:
    network = network_of("residual", tmp_path)
    before, code = copy.deepcopy(network.module.state_dict()), network.module.code
    addresses = [parameter.data_ptr() for parameter in network.module.parameters()]
    pt2.write(network, tmp_path / "written.pt2")
    assert network.module.code == code
    assert [parameter.data_ptr() for parameter in network.module.parameters()] == addresses
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_slices_are_written_without_the_storage_they_come_from(tmp_path: Path) -> None:
    module = nn.Linear(8, 4, bias=False)
    module.weight = nn.Parameter(torch.randn(2000, 100)[:4, :8])
    network = trace(module.eval(), [Input("x", torch.float32, (Dimension("batch"), 8))])
    pt2.write(network, tmp_path / "written.pt2")
    (stored,) = (data for name, data in unpack(tmp_path / "written.pt2").items() if "weights/weight_" in name)
    assert len(stored) == 4 * 8 * 4
    x = torch.randn(3, 8)
    assert torch.equal(pt2.read(tmp_path / "written.pt2")(x), network(x))


def test_a_network_outlives_the_file_it_was_read_from(tmp_path: Path) -> None:
    """Its tensors stay in the file, which the next network takes the place of."""
    first, second = (
        trace(nn.Linear(512, 512), [Input("x", torch.float32, (Dimension("batch"), 512))]) for _ in range(2)
    )
    pt2.write(first, tmp_path / "model.pt2")
    read = pt2.read(tmp_path / "model.pt2")
    pt2.write(second, tmp_path / "model.pt2")
    for path, tensor in first.module.state_dict().items():
        assert torch.equal(read.module.state_dict()[path], tensor)
    with torch.no_grad():
        for tensor in pt2.read(tmp_path / "model.pt2").module.parameters():
            tensor.zero_()
    for path, tensor in pt2.read(tmp_path / "model.pt2").module.state_dict().items():
        assert torch.equal(second.module.state_dict()[path], tensor), "what is changed is a copy"
