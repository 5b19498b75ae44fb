"""Attacks on the reader of `.onnx`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.acceptance.hostile.trap import Trap
from tests.acceptance.hostile.vector import Corpus
from tests.workers.engine import onnx_forgeries as forgeries
from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node

CORPUS = Corpus("onnx", "models", "model.onnx")
vector = CORPUS.vector


def _add(name: str, make: Callable[[], Any], code: str) -> None:
    CORPUS.add(name, lambda _: make().SerializeToString(), code)


for _make, _code in (
    (forgeries.functions, "functions"),
    (forgeries.custom, "custom_operator"),
    (forgeries.training, "training_info"),
    (forgeries.cyclic, "unknown_value"),
    (forgeries.duplicated, "malformed"),
    (forgeries.shadowing, "unknown_value"),
    (forgeries.strings, "string_tensor"),
    (forgeries.unprintable, "hostile_name"),
    (forgeries.sequence, "unsupported_input"),
):
    _add(_make.__name__, _make, _code)
for _length, _code in ((-7, "bad_shape"), ((1 << 63) - 1, "bad_shape"), (1 << 39, "input_too_large")):
    _add(f"dimension_of_{_length}", lambda length=_length: forgeries.dimension(length), _code)  # type: ignore[misc]
for _dims, _code in (
    ([-3, 4], "bad_shape"),
    ([(1 << 63) - 1, 4], "bad_shape"),
    ([1 << 39] * 3, "payload_size"),
    ([1] * 33, "too_large"),
):
    _add(f"weight_of_{_dims[0]}_{len(_dims)}", lambda dims=_dims: forgeries.tensor_with(dims=dims), _code)  # type: ignore[misc]
for _name, _content, _code in (
    ("ten_thousand_levels", lambda: forgeries.nested(10_000), "too_deep"),
    ("million_nodes", lambda: forgeries.many_nodes(1_000_000), "too_complex"),
    ("many_fields", forgeries.many_fields, "too_complex"),
    ("many_numbers", forgeries.many_numbers, "too_large"),
):
    CORPUS.add(_name, lambda _, content=_content: content(), _code)  # type: ignore[misc]


def _external(location: str) -> bytes:
    model = forgeries.external()
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", location
    return bytes(model.SerializeToString())


@vector("external_data")
def data_outside_of_the_folder(_: Trap) -> bytes:
    return _external("../../../../../../etc/passwd")


@vector("external_data")
def data_behind_a_hard_link(_: Trap) -> bytes:
    return _external("weights.bin")


@vector("malformed", "unsupported_format")
def nothing_but_a_pickle(trap: Trap) -> bytes:
    return trap.pickled


@vector("hostile_name", "malformed", "unknown_operator", "unsupported_operator")
def code_as_an_operator(trap: Trap) -> bytes:
    model = forgeries.plain(node("Relu", ["x"], ["z"]))
    model.graph.node[1].op_type = trap.expression
    return bytes(model.SerializeToString())


@vector()
def code_as_a_name(trap: Trap) -> bytes:
    """Names of nodes become names of layers."""
    model = forgeries.plain()
    model.graph.node[0].name = trap.expression[:200]
    return bytes(model.SerializeToString())


def _made(*nodes: Any) -> bytes:
    """A graph from a length to a tensor."""
    model = model_of(list(nodes), {"x": array(2, 3)}, ["y"], {"n": _int64(1 << 40), "w": array(3, 4)})
    return bytes(model.SerializeToString())


def _int64(*values: int) -> Any:
    return array(len(values), dtype=int) * 0 + list(values)


@vector("too_large", "cannot_trace", "out_of_memory")
def terabytes_of_a_constant(_: Trap) -> bytes:
    return _made(node("ConstantOfShape", ["n"], ["c"]), node("Add", ["c", "x"], ["y"]))


@vector("too_large", "cannot_trace", "out_of_memory")
def terabytes_by_repetition(_: Trap) -> bytes:
    repeated = node("Tile", ["w", "r"], ["t"])
    model = model_of(
        [repeated, node("MatMul", ["x", "t"], ["y"])],
        {"x": array(2, 3)},
        ["y"],
        {"w": array(3, 4), "r": _int64(1, 1 << 38)},
    )
    return bytes(model.SerializeToString())


@vector("too_large", "cannot_trace", "out_of_memory")
def range_of_a_trillion(_: Trap) -> bytes:
    model = model_of(
        [
            node("Range", ["a", "b", "c"], ["r"]),
            node("Cast", ["r"], ["f"], to=1),
            node("Add", ["f", "x"], ["y"]),
        ],
        {"x": array(2, 1)},
        ["y"],
        {name: _int64(value).reshape(()) for name, value in {"a": 0, "b": 1 << 40, "c": 1}.items()},
    )
    return bytes(model.SerializeToString())


@vector("too_large", "cannot_trace", "out_of_memory")
def padding_of_terabytes(_: Trap) -> bytes:
    model = model_of(
        [node("Pad", ["x", "p"], ["y"])], {"x": array(2, 3)}, ["y"], {"p": _int64(0, 0, 0, 1 << 40)}
    )
    return bytes(model.SerializeToString())


@vector("too_large", "cannot_trace", "inspection_failed")
def picture_enlarged_to_terabytes(_: Trap) -> bytes:
    """Small in the file and large only where it is run."""
    scales = array(4) * 0 + np.array([1, 1, 1 << 18, 1 << 18], np.float32)
    resized = node("Resize", ["x", "", "s"], ["r"], mode="nearest")
    model = model_of(
        [resized, node("ReduceMean", ["r"], ["y"])], {"x": array(2, 1, 4, 4)}, ["y"], {"s": scales}
    )
    return bytes(model.SerializeToString())
