"""Whole networks: what exporters write is read back with its layers whole and its variable axes variable."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from tests.workers.engine.formats.onnx_in.graphs import agree, array, model_of, node, runtime, saved
from tests.workers.engine.formats.onnx_in.networks import ROWS, Row, exported
from tests.workers.engine.formats.zoo import Scanned
from tests.workers.engine.hostile import rejection
from workers.engine.formats import onnx as onnx_out
from workers.engine.formats import pt2
from workers.engine.formats.onnx_in.check import answers, check, difference
from workers.engine.formats.onnx_in.reader import read
from workers.engine.graph.canonical import canonicalise
from workers.engine.graph.network import Dimension
from workers.engine.layers.find import find

X = array(2, 3, 8, 8)


# torch's newer exporter takes seconds for each network, and unrolls plain recurrent cells
_EXPORTS = [
    *(pytest.param(row, False, id=f"{row.name}, legacy") for row in ROWS),
    *(
        pytest.param(row, True, id=f"{row.name}, dynamo", marks=pytest.mark.slow)
        for row in ROWS
        if row.name != "rnn"
    ),
]


@pytest.mark.parametrize(("row", "dynamo"), _EXPORTS)
def test_what_torch_exports_is_read_back(row: Row, dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    module = exported(row, path, dynamo=dynamo)
    network = canonicalise(read(path).network)
    assert [spec.name for spec in network.inputs] == list(row.inputs)
    kinds = Counter(layer.kind for layer in find(network))
    assert kinds.keys() == row.kinds.keys()
    # between recurrent calls the newer exporter computes shapes: none of them is seen to feed another alone
    assert all(row.kinds[kind] <= kinds[kind] <= row.kinds[kind] + dynamo for kind in kinds)
    for spec in network.inputs:
        varying = [place for place, axis in enumerate(spec.shape) if isinstance(axis, Dimension)]
        assert varying == list(row.axes[spec.name])
    for rows in (1, 2):
        inputs = {name: value[:rows] for name, value in row.inputs.items()}
        with torch.no_grad():
            found, own = network(*inputs.values()), module(*inputs.values())
        (expected,) = runtime(path, {name: value.numpy() for name, value in inputs.items()})
        assert difference(found, expected) < 1e-5
        torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-5)


def test_what_was_read_can_be_written_in_both_forms(tmp_path: Path) -> None:
    exported(ROWS[5], tmp_path / "model.onnx", dynamo=False)
    network = read(tmp_path / "model.onnx").network
    pt2.write(network, tmp_path / "model.pt2")
    onnx_out.write(network, tmp_path / "again.onnx")
    inputs = ROWS[5].inputs
    with torch.no_grad():
        expected = network(*inputs.values()).numpy()
        assert difference(pt2.read(tmp_path / "model.pt2")(*inputs.values()), expected) < 1e-6
    (again,) = runtime(tmp_path / "again.onnx", {name: value.numpy() for name, value in inputs.items()})
    assert difference(torch.from_numpy(again), expected) < 1e-5


@pytest.mark.slow
def test_what_we_write_we_read(tmp_path: Path) -> None:
    exported(ROWS[2], tmp_path / "model.onnx", dynamo=True)
    network = read(tmp_path / "model.onnx").network
    onnx_out.write(network, tmp_path / "again.onnx")
    again = read(tmp_path / "again.onnx").network
    ids = ROWS[2].inputs["ids"]
    with torch.no_grad():
        torch.testing.assert_close(again(ids), network(ids), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", params=[False, True], ids=["legacy", "dynamo"])
def convolutional(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file by either of torch's exporters."""
    path = tmp_path_factory.mktemp("convolutional") / "model.onnx"
    exported(ROWS[0], path, dynamo=request.param)
    return path


def test_layers_are_called_as_in_the_file(convolutional: Path) -> None:
    names = [layer.name for layer in find(read(convolutional).network)]
    assert {"deep", "point", "up", "head"} < set(names)


def test_the_parameters_are_those_that_were_learned(convolutional: Path) -> None:
    module: nn.Module = read(convolutional).network.module
    assert {"deep.weight", "head.bias"} < dict(module.named_parameters()).keys()
    assert not any("running" in name for name in dict(module.named_parameters()))


def test_a_tied_matrix_stays_one_layer(tmp_path: Path) -> None:
    table = array(10, 4)
    nodes = [
        node("Gather", ["table", "ids"], ["rows"]),
        node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        node("MatMul", ["rows", "turned"], ["y"]),
    ]
    ids = np.array([[1, 2], [3, 9]])
    network = agree(saved(model_of(nodes, {"ids": ids}, ["y"], {"table": table}), tmp_path), {"ids": ids})
    (layer,) = find(network)
    assert layer.kind == "embedding"
    assert sum(parameter.numel() for parameter in network.module.parameters()) == table.size


def test_what_is_added_to_a_product_becomes_its_bias(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["b", "p"], ["y"])]
    constants = {"w": array(3, 4), "b": array(4, seed=1)}
    x = array(2, 3)
    network = agree(saved(model_of(nodes, {"x": x}, ["y"], constants), tmp_path), {"x": x})
    (layer,) = find(network)
    assert (layer.kind, layer.parameters) == ("linear", 16)


def test_all_operators_that_are_not_understood_are_named_at_once(tmp_path: Path) -> None:
    nodes = [node("Unique", ["x"], ["a"]), node("Bernoulli", ["a"], ["b"]), node("Unique", ["b"], ["c"])]
    rejected = rejection(read, saved(model_of(nodes, {"x": X}, ["c"]), tmp_path))
    assert rejected.code == "unsupported_operator"
    assert "Bernoulli (1), Unique (2)" in rejected.detail


def test_what_no_output_needs_is_not_looked_at(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Unique", ["x"], ["z"])]
    agree(saved(model_of(nodes, {"x": X}, ["y"]), tmp_path), {"x": X})


def branch(operator: str) -> Any:
    return helper.make_graph(
        [node(operator, ["x"], ["z"])], operator, [], [helper.make_empty_tensor_value_info("z")]
    )


def test_a_branch_is_taken_where_the_condition_is_constant(tmp_path: Path) -> None:
    for condition in (True, False):
        chosen = node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Exp"))
        model = model_of([chosen], {"x": X}, ["y"], {"c": np.array(condition)})
        agree(saved(model, tmp_path), {"x": X})


def test_a_branch_is_taken_where_the_condition_follows_from_shapes(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["n"]),
        node("Equal", ["n", "three"], ["c"]),
        node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Exp")),
    ]
    constants: dict[str, Any] = {"one": np.array(1), "three": np.array(3)}
    agree(saved(model_of(nodes, {"x": X}, ["y"], constants), tmp_path), {"x": X})


def test_a_branch_that_the_data_chooses_is_refused(tmp_path: Path) -> None:
    chosen = node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Exp"))
    model = model_of([chosen], {"x": X, "c": np.array(True)}, ["y"])
    rejected = rejection(read, saved(model, tmp_path))
    assert (rejected.code, "the If" in rejected.detail) == ("data_dependent", True)


def test_shapes_computed_in_the_graph_stay_variable(tmp_path: Path) -> None:
    """x.view(n, -1) and an expanded, numbered mask, as exporters write them."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "first"], ["n1"]),
        node("Concat", ["n1", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["flat"]),
        node("Range", ["zero", "n", "one"], ["numbers"]),
        node("Cast", ["numbers"], ["floats"], to=1),
        node("Unsqueeze", ["floats", "last"], ["column"]),
        node("ConstantOfShape", ["n1"], ["zeros"]),
        node("Unsqueeze", ["zeros", "last"], ["nothing"]),
        node("Add", ["flat", "column"], ["sum"]),
        node("Add", ["sum", "nothing"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "zero": np.array(0),
        "one": np.array(1),
        "first": np.array([0]),
        "last": np.array([1]),
        "rest": np.array([-1]),
    }
    network = agree(saved(model_of(nodes, {"x": X}, ["y"], constants), tmp_path), {"x": X})
    x = array(5, 3, 8, 8)
    assert difference(network(torch.from_numpy(x)), runtime(tmp_path / "model.onnx", {"x": x})[0]) < 1e-6


def test_an_axis_of_multiples_is_found_to_be_one(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["half"], strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Resize", ["half", "", "scales"], ["double"], mode="nearest"),
        node("Concat", ["x", "double"], ["y"], axis=1),
    ]
    constants: dict[str, Any] = {"w": array(4, 3, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = model_of(nodes, {"x": X}, ["y"], constants)
    for place, name in enumerate(("batch", None, "height", "width")):
        if name is not None:
            model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    path = saved(model, tmp_path)
    network = read(path).network
    assert [str(axis) for axis in network.inputs[0].shape] == ["batch", "3", "2*height", "2*width"]
    check(path, answers(network))
    onnx_out.write(network, tmp_path / "again.onnx")
    x = array(2, 3, 66, 98)
    (again,) = runtime(tmp_path / "again.onnx", {"x": x})
    assert difference(network(torch.from_numpy(x)), again) < 1e-5


def test_an_axis_that_takes_one_length_only_is_refused_by_name(tmp_path: Path) -> None:
    reshape = node("Reshape", ["x", "shape"], ["y"])
    model = model_of([reshape], {"x": array(4, 6)}, ["y"], {"shape": np.array([4, 6])})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert rejection(read, saved(model, tmp_path)).code in ("axis_not_free", "cannot_trace")


def test_inputs_with_unfit_names_get_fit_ones(tmp_path: Path) -> None:
    add = node("Add", ["input.1", "input:1"], ["y"])
    path = saved(model_of([add], {"input.1": X, "input:1": X}, ["y"]), tmp_path)
    assert [spec.name for spec in read(path).network.inputs] == ["input_1", "input_1_2"]


def test_quantised_weights_are_read_with_a_remark(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    constants: dict[str, Any] = {"q": array(3, 4, dtype=np.int8), "s": np.array(0.1, np.float32)}
    x = array(2, 3)
    path = saved(model_of(nodes, {"x": x}, ["y"], constants), tmp_path)
    network = agree(path, {"x": x})
    assert [layer.kind for layer in find(network)] == ["linear"]
    assert "Quantised weights (1 tensors)" in read(path).remarks[0].detail


def test_quantised_activations_are_refused(tmp_path: Path) -> None:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    constants: dict[str, Any] = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    rejected = rejection(read, saved(model_of(nodes, {"x": X}, ["y"], constants), tmp_path))
    assert (rejected.code, "quantised" in rejected.detail) == ("unsupported_operator", True)


def test_our_own_loops_over_time_are_read_back(tmp_path: Path) -> None:
    x = torch.randn(3, 5, 6)
    # both axes vary, as elsewhere: what torch compiled of a module for one length, later exports get too
    axes = {0: torch.export.Dim("n"), 1: torch.export.Dim("length")}
    program = torch.export.export(Scanned().eval(), (x,), dynamic_shapes=(axes,))
    torch.export.save(program, tmp_path / "model.pt2")
    network = pt2.read(tmp_path / "model.pt2")
    onnx_out.write(network, tmp_path / "model.onnx")
    again = agree(tmp_path / "model.onnx", {"x": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(again(x), network(x), rtol=1e-5, atol=1e-6)
    pt2.write(again, tmp_path / "again.pt2")
    with torch.no_grad():
        torch.testing.assert_close(pt2.read(tmp_path / "again.pt2")(x), network(x), rtol=1e-5, atol=1e-6)


def test_a_loop_over_time_is_read_as_one(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Add", ["h", "v"], ["a"]), node("Tanh", ["a"], ["n"]), node("Mul", ["n", "w"], ["o"])],
        "body",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("h", "v")],
        [helper.make_empty_tensor_value_info(name) for name in ("n", "o")],
    )
    scan = node("Scan", ["h0", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    inputs = {"h0": array(3, 4), "x": array(6, 3, 4, seed=1)}
    agree(saved(model_of([scan], inputs, ["last", "y"], {"w": array(4)}, variable=False), tmp_path), inputs)


def test_a_file_that_onnx_runtime_computes_otherwise_is_refused_by_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engine.formats.onnx_in import registry  # noqa: PLC0415

    nodes = [node("Relu", ["x"], ["a"]), node("Softplus", ["a"], ["b"]), node("Tanh", ["b"], ["y"])]
    path = saved(model_of(nodes, {"x": array(2, 3)}, ["y"]), tmp_path)
    check(path, answers(read(path).network))
    wrong = registry.Operator(lambda _, x: x, "")
    monkeypatch.setitem(registry.OPERATORS, "Softplus", wrong)
    rejected = rejection(lambda file: check(file, answers(read(file).network)), path)
    assert (rejected.code, rejected.layer) == ("differs_from_onnxruntime", "the Softplus")


@pytest.mark.parametrize(
    "operator", ["MatMul", "Gemm", "Gather", "Add", "Conv", "LSTM", "BatchNormalization"]
)
@pytest.mark.parametrize("count", [0, 1, 9])
def test_an_operator_with_another_number_of_operands_is_refused(
    operator: str, count: int, tmp_path: Path
) -> None:
    product = node("MatMul", ["x", "w"], ["z"])
    wrong = node(operator, ["z", "x", *["w"] * 7][:count], ["y"])
    path = saved(model_of([product, wrong], {"x": array(4, 4)}, ["y"], {"w": array(4, 4)}), tmp_path)
    found = rejection(read, path)
    assert found.code in ("cannot_trace", "malformed", "unsupported_operator")
    assert operator in found.detail


def test_a_file_that_onnx_runtime_does_not_open_is_refused(tmp_path: Path) -> None:
    # a product of float32 and float64 is none that ONNX has
    product = node("MatMul", ["x", "w"], ["y"])
    path = saved(model_of([product], {"x": array(2, 3)}, ["y"], {"w": array(3, 4)}), tmp_path)
    told = answers(read(path).network)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Unheard"
    path.write_bytes(model.SerializeToString())
    assert rejection(lambda file: check(file, told), path).code == "not_runnable"


@pytest.mark.parametrize(
    ("operator", "constants", "attributes"),
    [
        ("ConstantOfShape", {"a": np.array([1 << 39, 1 << 39])}, {}),
        ("Expand", {"a": array(1), "b": np.array([1 << 20, 1 << 20])}, {}),
        ("Tile", {"a": array(5), "b": np.array([1 << 39])}, {}),
        ("Range", {"a": np.array(0), "b": np.array(1 << 40), "c": np.array(1)}, {}),
        ("Pad", {"a": array(5), "b": np.array([0, 1 << 39])}, {}),
        ("OneHot", {"a": np.array([1]), "b": np.array(1 << 40), "c": array(2)}, {}),
        ("Upsample", {"a": array(1, 1, 4, 4), "b": np.array([1, 1, 1e8, 1e8], np.float32)}, {"opset": 9}),
    ],
)
def test_a_constant_that_would_not_fit_into_memory_is_refused(
    operator: str, constants: dict[str, Any], attributes: dict[str, Any], tmp_path: Path
) -> None:
    opset = attributes.get("opset", 20)
    nodes = [node(operator, list(constants), ["big"]), node("ReduceMax", ["big"], ["m"], keepdims=0)]
    nodes += [node("Cast", ["m"], ["f"], to=1), node("Add", ["x", "f"], ["y"])]
    path = saved(model_of(nodes, {"x": array(2, 3)}, ["y"], constants, opset=opset), tmp_path)
    assert rejection(read, path).code == "too_large"
