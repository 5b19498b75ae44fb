"""Hostile and broken ONNX files."""

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.workers.engine.formats.onnx_in.graphs import array, model_of, node
from tests.workers.engine.hostile import rejection
from tests.workers.engine.onnx_forgeries import (
    HOSTILE,
    X,
    many_fields,
    many_nodes,
    many_numbers,
    nested,
    plain,
)
from workers.engine.admit import onnx as admission
from workers.engine.admit.onnx import MAX_DEPTH
from workers.engine.admit.onnx_schema import MAX_NODES
from workers.engine.errors import Rejected

LIMIT_SECONDS = 1.0
LIMIT_BYTES = 64 << 20


@pytest.mark.parametrize(("code", "make", "named"), HOSTILE)
def test_what_has_no_place_in_a_model_is_refused_by_name(
    code: str, make: Callable[[], Any], named: str, tmp_path: Path
) -> None:
    rejected = _refused(make().SerializeToString(), tmp_path)
    assert rejected.code == code
    assert named in rejected.detail


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


def _refused(content: bytes, folder: Path) -> Any:
    """The rejection, which took no longer than it may."""
    (folder / "file").write_bytes(content)
    began = time.process_time()
    rejected = rejection(admission.admit, folder / "file")
    assert time.process_time() - began < LIMIT_SECONDS
    return rejected
