"""Recurrent calls: of all kinds, with states for all rows or for one, and those that torch does not have."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workers.engine.formats.onnx_in.graphs import agree, array, model_of, node, runtime, saved
from tests.workers.engine.hostile import rejection
from workers.engine.formats.onnx_in.check import answers, check, difference
from workers.engine.formats.onnx_in.reader import read


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
def test_recurrent_calls_of_all_kinds(kind: str, direction: str, given: bool, tmp_path: Path) -> None:
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    constants = {"W": array(ways, gates * 5, 4), "R": array(ways, gates * 5, 5, seed=1)}
    constants["B"] = array(ways, 2 * gates * 5, seed=2)
    inputs = {"x": array(6, 2, 4, seed=3)}
    names, outputs = ["x", "W", "R", "B"], ["y", "h"]
    attributes: dict[str, Any] = {"hidden_size": 5, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if kind == "LSTM":
        outputs.append("c")
    if given:
        inputs["h0"] = array(ways, 2, 5, seed=4)
        names += ["", "h0"]
        if kind == "LSTM":
            inputs["c0"] = array(ways, 2, 5, seed=5)
            names.append("c0")
    model = model_of([node(kind, names, outputs, **attributes)], inputs, outputs, constants, variable=False)
    agree(saved(model, tmp_path), inputs)


def _with_a_state_for_one_row(x: Any) -> Any:
    """Rows and times vary by what the file declares; the state that it is given does not."""
    nodes = [
        node("Transpose", ["x"], ["times"], perm=[1, 0, 2]),
        node("GRU", ["times", "W", "R", "", "", "h0"], ["y"], hidden_size=5, linear_before_reset=1),
    ]
    constants = {"W": array(1, 15, 4), "R": array(1, 15, 5, seed=1)}
    model = model_of(nodes, {"x": x, "h0": array(1, 1, 5)}, ["y"], constants, variable=False)
    for place, name in enumerate(("batch", "time")):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    return model


def test_rows_are_taken_one_by_one_where_a_state_is_for_one(tmp_path: Path) -> None:
    path = saved(_with_a_state_for_one_row(array(1, 6, 4)), tmp_path)
    imported = read(path)
    assert [[str(axis) for axis in spec.shape] for spec in imported.network.inputs] == [
        ["1", "time", "4"],
        ["1", "1", "5"],
    ]
    assert [remark.code for remark in imported.remarks] == ["one_row"]
    check(path, answers(imported.network))
    x, h0 = array(1, 9, 4, seed=2), array(1, 1, 5, seed=3)
    (expected,) = runtime(path, {"x": x, "h0": h0})
    assert difference(imported.network(torch.from_numpy(x), torch.from_numpy(h0)), expected) < 1e-5


def test_what_does_not_run_for_one_row_either_is_refused_as_for_many(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    rejected = rejection(
        read, saved(model_of(nodes, {"x": array(2, 3)}, ["y"], {"w": array(4, 4)}), tmp_path)
    )
    assert (rejected.code, "[3" in rejected.detail or "3x3" in rejected.detail) == ("cannot_trace", True)


def test_relu_cells_without_biases(tmp_path: Path) -> None:
    x = array(6, 2, 4)
    constants = {"W": array(1, 5, 4), "R": 0.3 * array(1, 5, 5)}
    call = node("RNN", ["x", "W", "R"], ["y"], hidden_size=5, activations=["Relu"])
    agree(saved(model_of([call], {"x": x}, ["y"], constants, variable=False), tmp_path), {"x": x})


@pytest.mark.parametrize(
    ("kind", "attributes", "reason"),
    [
        ("GRU", {}, "linear_before_reset"),
        ("LSTM", {"clip": 1.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "coupled"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "Relu"),
    ],
)
def test_a_recurrent_call_that_torch_does_not_have_is_refused_by_name(
    kind: str, attributes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    gates = 4 if kind == "LSTM" else 3
    constants = {"W": array(1, gates * 5, 4), "R": array(1, gates * 5, 5)}
    call = node(kind, ["x", "W", "R"], ["y"], hidden_size=5, **attributes)
    rejected = rejection(read, saved(model_of([call], {"x": array(6, 2, 4)}, ["y"], constants), tmp_path))
    assert rejected.code == "unsupported_operator"
    assert reason in rejected.detail
    assert rejected.layer == f"the {kind}"
