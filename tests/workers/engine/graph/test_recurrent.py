"""Recurrent calls stay whole in a trace, and torch stays as it was."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.workers.engine.networks import recurrent_network
from workers.engine.formats import pt2
from workers.engine.graph.network import call_nodes
from workers.engine.graph.recurrent import RECURRENT, kept_whole

_STOCK = """
import sys, torch
sys.modules.update(dict.fromkeys(("workers", "app", "tests")))
module = torch.export.load(sys.argv[1]).module()
print([list(module(torch.ones(batch, length, 5)).shape) for batch, length in ((1, 1), (4, 9))])
"""


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh", "relu", "projected"])
def test_a_trace_keeps_the_call_and_the_length_variable(cell: str, batch_first: bool) -> None:
    network = recurrent_network(cell, bidirectional=True, batch_first=batch_first)
    assert [node.target in RECURRENT for node in call_nodes(network.module)].count(True) == 1
    shapes = {tuple(network(torch.ones(*size, 5))[0].shape[:2]) for size in ((1, 1), (4, 9), (9, 4))}
    assert shapes == {(1, 1), (4, 9), (9, 4)}


def test_what_was_traced_loads_in_stock_torch_at_every_length(tmp_path: Path) -> None:
    pt2.write(recurrent_network("gru", sequence_only=True), tmp_path / "model.pt2")
    command = [sys.executable, "-c", _STOCK, str(tmp_path / "model.pt2")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert output.strip() == "[[1, 1, 7], [4, 9, 7]]"


def test_calls_on_real_tensors_are_torchs_own_and_nothing_stays_behind() -> None:
    network, x = recurrent_network("lstm"), torch.randn(2, 6, 5)
    before = {operator: dict(operator.py_kernels) for operator in RECURRENT}
    expected = network(x)[0]
    with kept_whole(), kept_whole():
        assert torch.equal(network(x)[0], expected)
    assert {operator: dict(operator.py_kernels) for operator in RECURRENT} == before
    with pytest.raises(RuntimeError), kept_whole():
        raise RuntimeError
    assert {operator: dict(operator.py_kernels) for operator in RECURRENT} == before
