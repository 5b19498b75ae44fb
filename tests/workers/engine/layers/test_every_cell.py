"""Every layer, every method: each cell of the table in docs/methods.md computes, costs and trains as it says,
and opens in stock tools."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from jsonschema import Draft202012Validator
from torch.utils._pytree import tree_leaves

from app.contract.spec import Decomposition
from app.methods.catalogue import CATALOGUE, LAYERS
from tests.workers.engine.layers.cells import (
    ATTENTION_CASES,
    CASES,
    CELLS,
    assert_costs,
    assert_same,
    edited,
    half,
    halved,
    most,
    network_of,
    outputs,
    together,
)
from tests.workers.engine.layers.table import ROWS, documented
from tests.workers.engine.networks import draw_all
from workers.engine.formats import onnx, pt2
from workers.engine.graph import surgery
from workers.engine.layers.base import Layer
from workers.engine.layers.find import find
from workers.engine.layers.substitute import merged
from workers.engine.measure import reopen

Cell = tuple[str, str]

EVERY = pytest.mark.parametrize(
    ("case", "method"), [pytest.param(*cell, id=": ".join(cell)) for cell in CELLS]
)
# The error of a pair is that of a product, not of its first weight: see test_attention.
BUT_PAIRS = pytest.mark.parametrize(
    ("case", "method"),
    [pytest.param(*cell, id=": ".join(cell)) for cell in CELLS if cell[0] not in ATTENTION_CASES],
)


def layers() -> Iterator[Layer]:
    """All layers of all networks."""
    for case in CASES:
        yield from find(network_of(case), joint=True)


def test_the_table_and_the_code_offer_every_layer_the_same_methods() -> None:
    found = list(layers())
    for layer in found:
        assert set(layer.methods) == documented(layer), (layer.kind, layer.name)
    for row in ROWS:
        assert {layer.kind for layer in found if row.holds(layer)} == row.kinds, row
    assert {row.method for row in ROWS} == {*Decomposition, "keep"}


def test_the_api_names_the_kinds_that_take_a_method_and_describes_its_ranks() -> None:
    kinds, ranks = defaultdict[str, set[str]](set), defaultdict[str, set[tuple[int, ...]]](set)
    for layer in layers():
        kinds["keep"].add(layer.kind)
        for method, factorization in layer.methods.items():
            kinds[method].add(layer.kind)
            ranks[method].add(factorization.max_rank)
    assert kinds["keep"] == set(LAYERS)
    for info in CATALOGUE.methods:
        assert set(info.layers) == kinds[info.name.value], info.name
        schema = Draft202012Validator(info.parameters)
        assert all(schema.is_valid({"rank": list(rank)}) for rank in ranks[info.name.value])


@EVERY
def test_at_full_rank_a_cell_computes_the_same_and_leaves_the_original_alone(case: str, method: str) -> None:
    network = network_of(case)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    other, changes = edited(network, method, most)
    assert all(change.error < 1e-5 for change in changes)
    assert_same(network, other)
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


@EVERY
def test_a_cell_costs_what_an_independent_count_of_the_rewritten_graph_says(case: str, method: str) -> None:
    assert_costs(network_of(case), *halved(case, method))


@EVERY
def test_factors_that_changed_are_merged_into_dense_weights_that_compute_the_same(
    case: str, method: str
) -> None:
    network, factorised = network_of(case), halved(case, method)[0].copy()
    for parameter in factorised.module.parameters():  # as if trained
        parameter.data.mul_(1.0 + 0.3 * torch.rand_like(parameter))
    taken = [layer for layer in find(network, joint=True) if method in layer.methods]
    forms = [(layer, method, half(layer.methods[method])) for layer in taken]
    dense = merged(network, forms, factorised)
    assert dense.module.state_dict().keys() == network.module.state_dict().keys()
    assert_same(factorised, dense)


@EVERY
def test_every_factor_receives_gradients(case: str, method: str) -> None:
    network = halved(case, method)[0].copy()
    surgery.set_training(network.module, True)
    results = tree_leaves(network(*draw_all(network, 3, 6)))
    torch.cat([result.flatten() for result in results]).square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.module.parameters())


@BUT_PAIRS
def test_the_predicted_error_bounds_the_measured_one(case: str, method: str) -> None:
    assert all(0 < change.error**2 <= change.form.error + 1e-6 for change in halved(case, method)[1])


def representatives() -> dict[str, dict[str, Cell]]:
    """For every kind of layer the first cell of each row of the table, with groups and without."""
    found: dict[str, dict[str, Cell]] = defaultdict(dict)
    for case in CASES:
        for layer in find(network_of(case), joint=True):
            for row in ROWS:
                if row.holds(layer) and row.method in layer.methods:
                    found[layer.kind].setdefault(f"{row} {layer.groups > 1}", (case, row.method))
    return found


def by_method() -> list[Cell]:
    """One cell for every method, without a loop over time: these are slow to export."""
    cases = {"svd": "linear", "tensor_train": "embedding", "joint_svd": "attention to itself"}
    cases["input_svd"] = "lstm, two layers"
    return [(cases.get(method, "conv2d"), str(method)) for method in Decomposition]


FILES = [
    pytest.param(by_method(), id="every method"),
    *(
        pytest.param(list(dict.fromkeys(cells.values())), id=kind, marks=pytest.mark.slow)
        for kind, cells in representatives().items()
    ),
]


@pytest.mark.parametrize("cells", FILES)
def test_cells_open_in_stock_torch_and_onnx_runtime_and_in_ours_at_every_batch_and_length(
    cells: Sequence[Cell], tmp_path: Path
) -> None:
    network = together([halved(*cell)[0] for cell in cells])
    pt2.write(network, tmp_path / "model.pt2")
    onnx.write(network, tmp_path / "model.onnx")
    stock = torch.export.load(tmp_path / "model.pt2").module()
    ours = pt2.read(tmp_path / "model.pt2")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [spec.name for spec in session.get_inputs()]
    for batch, length in ((1, 1), (3, 7)):
        inputs = draw_all(network, batch, length)
        wanted = outputs(network, inputs)
        found = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        results = zip(wanted, outputs(stock, inputs), outputs(ours, inputs), found, strict=True)
        for expected, in_stock, in_ours, in_onnx in results:
            assert torch.equal(in_stock, expected)
            assert torch.equal(in_ours, expected)
            torch.testing.assert_close(torch.from_numpy(in_onnx), expected, rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "inputs.npz", *inputs)
    np.savez(tmp_path / "wanted.npz", *wanted)
    clean = reopen.agree(tmp_path / "model.pt2", "pt2", tmp_path / "inputs.npz", tmp_path / "wanted.npz")
    assert clean.n == len(wanted[0])
