"""Data sets: their facts, and arrays read as they were written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from tests.workers.engine.hostile import rejection
from workers.engine.formats import arrays
from workers.engine.formats.arrays import ArrayFacts, DatasetFacts
from workers.engine.rows import FileRows, whole

IMAGES = np.linspace(-1, 2, 5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
LABELS = np.array([3, 1, 4, 1, 5])
FACTS = DatasetFacts(
    5,
    (ArrayFacts("image", "float32", (5, 2, 3), -1.0, 2.0), ArrayFacts("target", "int64", (5,), 1.0, 5.0)),
)


def written(folder: Path, kind: str, **content: Any) -> tuple[Path, str]:
    path = folder / "data"
    with path.open("wb") as file:
        if kind == "stored":
            np.savez(file, **content)
        elif kind == "compressed":
            np.savez_compressed(file, **content)
    if kind == "safetensors":
        save_file({name: np.array(array, order="C") for name, array in content.items()}, path)
    return path, "safetensors" if kind == "safetensors" else "npz"


KINDS = pytest.mark.parametrize("kind", ["stored", "compressed", "safetensors"])


@KINDS
def test_inspection_finds_rows_shapes_and_ranges(kind: str, tmp_path: Path) -> None:
    facts = arrays.inspect(*written(tmp_path, kind, image=IMAGES, target=LABELS))
    assert facts.rows == 5
    assert sorted(facts.arrays, key=lambda array: array.name) == list(FACTS.arrays)


@KINDS
def test_the_range_of_labels_leaves_out_what_is_ignored(kind: str, tmp_path: Path) -> None:
    labels = np.full((3, 100_003), -100)
    labels[0, 5], labels[2, -1] = 2, 7
    facts = arrays.inspect(*written(tmp_path, kind, target=labels, other=labels)).arrays
    assert ArrayFacts("target", "int64", (3, 100_003), 2.0, 7.0, 300_007) in facts
    assert ArrayFacts("other", "int64", (3, 100_003), -100.0, 7.0) in facts


def test_labels_that_are_all_ignored_have_no_range(tmp_path: Path) -> None:
    (facts,) = arrays.inspect(*written(tmp_path, "stored", target=np.full(4, -100, np.int8))).arrays
    assert facts == ArrayFacts("target", "int8", (4,), None, None, 4)


@KINDS
@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "bool", "int32"])
def test_arrays_are_read_as_written_and_what_is_read_is_a_copy(kind: str, dtype: str, tmp_path: Path) -> None:
    read = arrays.read(*written(tmp_path, kind, image=IMAGES.astype(dtype), target=LABELS))
    assert set(read) == {"image", "target"}
    assert (str(read["image"].dtype), read["image"].shape) == (dtype, IMAGES.shape)
    read["image"][np.array([0])][:] = 0
    assert np.array_equal(whole(read["image"]), IMAGES.astype(dtype))


@KINDS
def test_arrays_stay_in_files_until_rows_are_asked_for(kind: str, tmp_path: Path) -> None:
    assert isinstance(arrays.read(*written(tmp_path, kind, image=IMAGES))["image"], FileRows)


@pytest.mark.parametrize("kind", ["stored", "compressed"])
def test_column_major_arrays_keep_their_values(kind: str, tmp_path: Path) -> None:
    path, form = written(tmp_path, kind, image=np.asfortranarray(IMAGES))
    assert np.array_equal(whole(arrays.read(path, form)["image"]), IMAGES)
    assert arrays.inspect(path, form).arrays == FACTS.arrays[:1]


@KINDS
def test_ranges_span_arrays_larger_than_a_chunk(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 100_003))
    values[0, 7], values[2, -1] = -9.5, 11.25
    (facts,) = arrays.inspect(*written(tmp_path, kind, x=values)).arrays
    assert (facts.minimum, facts.maximum) == (-9.5, 11.25)


@KINDS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 150_000, 299_999])
def test_values_that_are_not_finite_are_rejected(kind: str, value: float, place: int, tmp_path: Path) -> None:
    bad = np.ones(300_000, np.float32)
    bad[place] = value
    path, form = written(tmp_path, kind, fine=np.ones(300_000, np.float16), bad=bad)
    rejected = rejection(lambda file: arrays.inspect(file, form), path)
    assert rejected.code == "not_finite"
    assert "'bad'" in rejected.detail


@KINDS
@pytest.mark.parametrize("use", [arrays.inspect, arrays.read])
def test_rows_that_differ_are_named(kind: str, use: Any, tmp_path: Path) -> None:
    path, form = written(tmp_path, kind, image=IMAGES, target=LABELS[:4])
    rejected = rejection(lambda file: use(file, form), path)
    assert rejected.code == "rows_differ"
    assert "image has 5" in rejected.detail
    assert "target has 4" in rejected.detail


@KINDS
@pytest.mark.parametrize(
    ("content", "code"),
    [({}, "no_arrays"), ({"x": np.ones((0, 3))}, "no_rows"), ({"x": np.ones(())}, "no_rows")],
)
def test_empty_data_sets_are_rejected(kind: str, content: Any, code: str, tmp_path: Path) -> None:
    path, form = written(tmp_path, kind, **content)
    assert rejection(lambda file: arrays.inspect(file, form), path).code == code


def test_bfloat16_is_rejected_with_a_way_out(tmp_path: Path) -> None:
    save_tensors({"x": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "file")
    rejected = rejection(lambda file: arrays.inspect(file, "safetensors"), tmp_path / "file")
    assert (rejected.code, rejected.hint) == ("unsupported_dtype", "Save it as float32.")


def test_an_unknown_format_is_rejected(tmp_path: Path) -> None:
    assert rejection(lambda file: arrays.read(file, "csv"), tmp_path).code == "unsupported_format"


def test_a_damaged_compressed_file_is_rejected(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 99, 10_000)
    path, form = written(tmp_path, "compressed", x=noise)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert rejection(lambda file: arrays.inspect(file, form), path).code == "corrupt_archive"


def test_a_good_file_is_read_after_a_hostile_one(tmp_path: Path) -> None:
    path, form = written(tmp_path, "stored", image=IMAGES, target=np.array([object()] * 5))
    assert rejection(lambda file: arrays.inspect(file, form), path).code == "pickled_objects"
    assert arrays.inspect(*written(tmp_path, "stored", image=IMAGES, target=LABELS)) == FACTS


@KINDS
def test_arrays_are_named_as_nested_inputs_are(kind: str, tmp_path: Path) -> None:
    content = {"batch.ids": IMAGES, "pair.0": LABELS}
    read = arrays.read(*written(tmp_path, kind, **content))
    assert {name: whole(rows).tolist() for name, rows in read.items()} == {
        name: array.tolist() for name, array in content.items()
    }


@KINDS
@pytest.mark.parametrize("name", ["batch..ids", ".ids", "0.ids", "batch.id s", "batch." + "x" * 200])
def test_other_names_with_dots_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    path, stored = written(tmp_path, kind, **{name: LABELS})
    assert rejection(lambda path: arrays.inspect(path, stored), path).code == "hostile_name"
