"""Files through whole jobs: what passes, what is refused and why, and lengths in place of axes."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.formats import uploads
from benchmarks.formats.__main__ import put_through
from benchmarks.formats.uploads import Upload
from tests.benchmarks.small import write_case


@pytest.mark.slow
def test_what_goes_through_says_how_near_it_is(tmp_path: Path) -> None:
    [upload] = uploads._of_case(write_case(tmp_path, 96))
    *start, macs, methods, near, result = put_through(upload)
    assert start[:2] == ["`.pt2`", tmp_path.name]
    assert 0.3 < float(macs.removesuffix("%")) / 100 <= 0.61
    assert "svd" in methods
    assert near.startswith("top1 1 → 0.")
    assert result == "passes"


def test_what_is_refused_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"nothing")
    row = put_through(Upload("`.pt2`", "nothing", lambda _: {"model": tmp_path / "model.pt2"}, {}))
    assert row[1] == "nothing"
    assert row[-1].startswith("not_a_zip: ")


@pytest.mark.parametrize(
    ("axes", "fixed"),
    [
        (["batch", 3, "height", "width"], [1, 3, 320, 320]),
        (["batch", "samples"], [1, 512]),
        ([None, 7], [1, 7]),
    ],
)
def test_lengths_take_the_place_of_axes_that_vary(
    axes: list[str | int | None], fixed: list[int], tmp_path: Path
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, axes) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", [x], [y])
    onnx.save(helper.make_model(graph), tmp_path / "varies.onnx")
    path = uploads._fixed(tmp_path / "varies.onnx", tmp_path)["model"]
    [value] = onnx.load(path).graph.input
    assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == fixed


def test_files_of_one_name_are_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("first/same.onnx", "second/same.onnx", "second/other.onnx"):
        path = tmp_path / "some_networks" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [(upload.form, upload.name) for upload in uploads._of_package("some_networks")]
    names = ["first/same.onnx", "other.onnx", "second/same.onnx"]
    assert found == [(form, f"some_networks, {name}") for name in names for form in ("ONNX", uploads.FIXED)]


@pytest.mark.slow
@pytest.mark.parametrize("model", uploads.MODELS, ids=lambda model: model.architecture)
def test_every_model_can_be_written(model: uploads.Model, tmp_path: Path) -> None:
    """A run must not end at what a library cannot make."""
    made = [
        uploads._saved(model, tmp_path),
        uploads._program(model, tmp_path),
        uploads._exported(model, True, tmp_path),
        uploads._exported(model, False, tmp_path),
    ]
    assert all(files["model"].stat().st_size > 10_000 for files in made)
