"""Hostile and broken ONNX files."""

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node
from tests.workers.engine.hostile import rejection
from workers.engine.admit import onnx as admission
from workers.engine.admit.onnx import MAX_DEPTH
from workers.engine.admit.onnx_schema import MAX_NODES
from workers.engine.errors import Rejected

X = array(2, 3)
LIMIT_SECONDS = 1.0
LIMIT_BYTES = 64 << 20


def plain(*nodes: Any, weight: Any = None) -> Any:
    """A model of one product, with more nodes where they are given."""
    product = node("MatMul", ["x", "w"], ["y"])
    return model_of([product, *nodes], {"x": X}, ["y"], {"w": array(3, 4) if weight is None else weight})


def tensor_with(**fields: Any) -> Any:
    """The model with fields of its weight set."""
    model = plain()
    for name, value in fields.items():
        field = getattr(model.graph.initializer[0], name)
        if isinstance(value, list):
            del field[:]
            field.extend(value)
        else:
            setattr(model.graph.initializer[0], name, value)
    return model


def dimension(length: int) -> Any:
    model = plain()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = length
    return model


def external() -> Any:
    return tensor_with(data_location=TensorProto.EXTERNAL)


def functions() -> Any:
    model = plain()
    model.functions.append(
        helper.make_function(
            "own", "f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 20)]
        )
    )
    return model


def custom() -> Any:
    return plain(node("FusedConv", ["x"], ["z"], domain="com.microsoft"))


def training() -> Any:
    model = plain()
    model.training_info.add()
    return model


def cyclic() -> Any:
    return model_of([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], {"x": X}, ["b"])


def duplicated() -> Any:
    return plain(node("Relu", ["x"], ["y"]))


def shadowing() -> Any:
    inner = helper.make_graph(
        [node("Relu", ["x"], ["y"])], "g", [], [helper.make_empty_tensor_value_info("y")]
    )
    return plain(node("If", ["c"], ["z"], then_branch=inner, else_branch=inner), weight=None)


def strings() -> Any:
    return plain(weight=np.array([["a"]], dtype=object))


def unprintable() -> Any:
    return plain(node("Relu", ["x"], ["a\nb"]))


def opset(version: int) -> Any:
    model = plain()
    model.opset_import[0].version = version
    return model


def attribute(**fields: Any) -> Any:
    model = plain(node("Relu", ["x"], ["z"], alpha=1.0))
    for name, value in fields.items():
        setattr(model.graph.node[1].attribute[0], name, value)
    return model


def without_shape() -> Any:
    model = plain()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def sequence() -> Any:
    model = plain()
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2]))
    return model


HOSTILE: list[tuple[str, Callable[[], Any], str]] = [
    ("external_data", external, "'w'"),
    ("functions", functions, "functions"),
    ("custom_operator", custom, "com.microsoft.FusedConv"),
    ("training_info", training, "training"),
    ("unknown_value", cyclic, "'b'"),
    ("malformed", duplicated, "'y'"),
    ("unknown_value", shadowing, "'c'"),
    ("string_tensor", strings, "'w'"),
    ("hostile_name", unprintable, "'a\\nb'"),
    ("unsupported_opset", lambda: opset(8), "9"),
    ("unsupported_opset", lambda: opset(24), "23"),
    ("bad_shape", lambda: dimension(-7), "-7"),
    ("bad_shape", lambda: dimension(0), "'x'"),
    ("bad_shape", lambda: dimension((1 << 63) - 1), str((1 << 63) - 1)),
    ("input_too_large", lambda: dimension(1 << 39), "large"),
    ("bad_shape", lambda: tensor_with(dims=[-3, 4]), "'w'"),
    ("bad_shape", lambda: tensor_with(dims=[(1 << 63) - 1, 4]), "'w'"),
    ("payload_size", lambda: tensor_with(dims=[1 << 39, 1 << 39, 1 << 39]), "'w'"),
    ("payload_size", lambda: tensor_with(dims=[3, 5]), "[3, 5]"),
    ("payload_size", lambda: tensor_with(raw_data=b"1234"), "'w'"),
    ("payload_size", lambda: tensor_with(data_type=TensorProto.DOUBLE), "float64"),
    ("malformed", lambda: tensor_with(float_data=[1.0]), "'w'"),
    ("unsupported_dtype", lambda: tensor_with(data_type=TensorProto.COMPLEX64), "'w'"),
    ("too_large", lambda: tensor_with(dims=[1] * 33), "'w'"),
    ("unsupported_attribute", lambda: attribute(type=onnx.AttributeProto.TYPE_PROTO), "'alpha'"),
    ("unsupported_attribute", lambda: attribute(ref_attr_name="beta"), "'alpha'"),
    ("malformed", lambda: attribute(type=onnx.AttributeProto.INT), "'alpha'"),
    ("unsupported_input", without_shape, "'x'"),
    ("unsupported_input", sequence, "'x'"),
]


@pytest.mark.parametrize(("code", "make", "named"), HOSTILE)
def test_what_has_no_place_in_a_model_is_refused_by_name(
    code: str, make: Callable[[], Any], named: str, tmp_path: Path
) -> None:
    rejected = _refused(make().SerializeToString(), tmp_path)
    assert rejected.code == code
    assert named in rejected.detail


def nested(depth: int) -> bytes:
    """A graph within the branch of an If within …: built from the inside, since no library goes so deep."""
    graph = b""
    for _ in range(depth):
        attribute_ = _field(1, b"then_branch") + _field(6, graph) + bytes([20 << 3 & 0x7F | 0x80, 1, 5])
        node_ = _field(4, b"If") + _field(5, attribute_)
        graph = _field(1, node_)
    return _field(7, graph) + _field(8, bytes([2 << 3, 20]))


def many_nodes(count: int) -> bytes:
    one = _field(1, _field(1, b"x") + _field(2, b"y") + _field(4, b"Relu"))
    return _field(7, one * count) + _field(8, bytes([2 << 3, 20]))


def many_fields() -> bytes:
    return _field(7, b"\x82\x01\x00" * 300_000) + _field(8, bytes([2 << 3, 20]))


def many_numbers() -> bytes:
    """A tensor of four million whole numbers, each as a varint of its own."""
    stored = bytes([1 << 3, 0]) + bytes([2 << 3, 7]) + _field(7, bytes(4_000_000)) + _field(8, b"w")
    return _field(7, _field(5, stored)) + _field(8, bytes([2 << 3, 20]))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (lambda: nested(10_000), "too_deep"),
        (lambda: nested(MAX_DEPTH + 2), "too_deep"),
        (lambda: many_nodes(1_000_000), "too_complex"),
        (lambda: many_nodes(MAX_NODES + 1), "too_complex"),
        (many_fields, "too_complex"),
        (many_numbers, "too_large"),
        (lambda: b"", "not_onnx"),
        (lambda: b"\x08\x0a", "not_onnx"),
        (lambda: b"\x08" + b"\xff" * 20, "malformed"),
        (lambda: b"\x08\xff", "malformed"),
        (lambda: b"\x3a\xff\xff\xff\xff\x0f", "malformed"),
        (lambda: b"\x3b" + bytes(20), "malformed"),
        (lambda: b"PK\x03\x04" + bytes(40), "malformed"),
    ],
)
def test_bombs_and_nonsense_are_refused_at_once(
    content: Callable[[], bytes], code: str, tmp_path: Path
) -> None:
    assert _refused(content(), tmp_path).code == code
    tracemalloc.start()
    rejection(admission.admit, tmp_path / "file")
    assert tracemalloc.get_traced_memory()[1] < LIMIT_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_no_prefix_of_a_model_is_taken_for_one(cut: int, tmp_path: Path) -> None:
    content = plain().SerializeToString()
    assert _refused(content[:-cut], tmp_path).code


def test_single_changed_bytes_are_refused_or_read(tmp_path: Path) -> None:
    content = plain().SerializeToString()
    path, codes = tmp_path / "file", set()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with contextlib.suppress(Rejected):  # and nothing else
            admission.admit(path)
            continue
        codes.add(rejection(admission.admit, path).code)
    assert len(codes) > 5


def test_an_ordinary_model_is_admitted_as_it_is(tmp_path: Path) -> None:
    weight = array(3, 4)
    (tmp_path / "file").write_bytes(plain(weight=weight).SerializeToString())
    model = admission.admit(tmp_path / "file")
    assert (model.opset, model.graph.outputs) == (20, ("y",))
    assert [(spec.name, spec.dtype, spec.shape) for spec in model.graph.inputs] == [
        ("x", "float32", ("batch", 3))
    ]
    stored = model.graph.constants["w"]
    assert (stored.dtype, stored.shape) == ("float32", (3, 4))
    np.testing.assert_array_equal(np.frombuffer(stored.data, np.float32).reshape(3, 4), weight)
    assert [(each.operator, each.inputs) for each in model.graph.nodes] == [("MatMul", ("x", "w"))]


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int64", "int32", "int8", "uint8", "int16", "float16", "bool"]
)
def test_elements_listed_one_by_one_are_the_same_as_raw_ones(dtype: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [1, 0, 100]]).astype(dtype)
    listed = helper.make_tensor(
        "w", helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values.reshape(-1)
    )
    assert not listed.raw_data
    for stored in (listed, numpy_helper.from_array(values, "w")):
        model = plain()
        model.graph.initializer[0].CopyFrom(stored)
        (tmp_path / "file").write_bytes(model.SerializeToString())
        found = admission.admit(tmp_path / "file").graph.constants["w"]
        assert found.shape == values.shape
        np.testing.assert_array_equal(np.frombuffer(found.data, values.dtype).reshape(values.shape), values)


def test_values_of_branches_may_share_names_with_each_other(tmp_path: Path) -> None:
    branches = [
        helper.make_graph([node(kind, ["x"], ["z"])], "g", [], [helper.make_empty_tensor_value_info("z")])
        for kind in ("Relu", "Abs")
    ]
    chosen = node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    model = model_of([chosen], {"x": X, "c": np.array(True)}, ["y"])
    (tmp_path / "file").write_bytes(model.SerializeToString())
    (found,) = admission.admit(tmp_path / "file").graph.nodes
    names = [graph.outputs[0] for graph in found.subgraphs]
    assert len(set(names)) == 2


def _field(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _refused(content: bytes, folder: Path) -> Any:
    """The rejection, which took no longer than it may."""
    (folder / "file").write_bytes(content)
    began = time.process_time()
    rejected = rejection(admission.admit, folder / "file")
    assert time.process_time() - began < LIMIT_SECONDS
    return rejected
