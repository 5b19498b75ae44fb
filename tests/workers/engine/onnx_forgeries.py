"""Forged ONNX files: what has no place in a model, and bombs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node

X = array(2, 3)


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


def _field(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
