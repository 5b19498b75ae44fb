"""Names from files, made fit."""

import pytest

from workers.engine.formats.onnx_in.names import Paths, identifier, module_of


@pytest.mark.parametrize(
    ("tensor", "node", "module"),
    [
        ("layers.3.conv.weight", "/any/Conv", "layers.3.conv"),
        ("onnx::Conv_7", "/layers.3/conv/Conv", "layers.3.conv"),
        ("onnx::MatMul_7", "/head/MatMul_1", "head"),
        ("w", "", "conv"),
    ],
)
def test_a_layer_is_called_after_its_weight_or_else_its_node(tensor: str, node: str, module: str) -> None:
    operator = node.rpartition("/")[2].split("_")[0] or "Conv"
    assert ".".join(module_of(tensor, node, operator).split("/")) == module


@pytest.mark.parametrize(
    ("name", "fit"),
    [("input.1", "input_1"), ("1x", "_1x"), ("lambda", "lambda_"), ("self", "self_"), ("é", "_")],
)
def test_identifiers(name: str, fit: str) -> None:
    assert identifier(name) == fit


def test_no_path_is_handed_out_twice_or_inside_of_another() -> None:
    paths = Paths()
    assert paths.claim("a.b", ["weight"]) == ["a.b.weight"]
    assert paths.claim("a.b", ["weight"]) == ["a.b_2.weight"]
    assert paths.claim("a.b.weight", ["bias"]) == ["a.b.weight_2.bias"]
    assert paths.claim("a", ["b"]) == ["a_2.b"]


def test_paths_avoid_what_modules_have_already() -> None:
    ((path,), (other,)) = Paths().claim("forward", ["weight"]), Paths().claim("class.0", ["weight"])
    assert (path, other) == ("forward_.weight", "class_.0.weight")
