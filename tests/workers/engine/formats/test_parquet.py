"""Parquet files as data sets: read as they were written, within memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from tests.workers.engine.hostile import rejection
from tests.workers.engine.parquets import table
from workers.engine.errors import Rejected
from workers.engine.formats import arrays, parquet
from workers.engine.formats.arrays import ArrayFacts
from workers.engine.rows import whole

ROOT = Path(__file__).parents[4]
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(1000, 2, 3, 4)).astype(np.float32)
LABELS = RANDOM.integers(0, 7, 1000)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"row_group_size": 77},
    {"data_page_size": 100, "compression": "zstd"},
    {"use_dictionary": False, "data_page_version": "2.0", "compression": "none"},
    {"version": "1.0", "store_schema": False},
]


def lists(array: NDArray[Any], fixed: bool = False) -> pa.Array:
    """An array as lists of lists."""
    found = pa.array(array.reshape(-1))
    for length in array.shape[:0:-1]:
        if fixed:
            found = pa.FixedSizeListArray.from_arrays(found, length)
        else:
            offsets = pa.array(np.arange(0, len(found) + 1, length, dtype=np.int32))
            found = pa.ListArray.from_arrays(offsets, found)
    return found


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("fixed", [False, True])
def test_arrays_are_read_as_written(options: dict[str, Any], fixed: bool, tmp_path: Path) -> None:
    path = table(tmp_path / "file", {"x": lists(IMAGES, fixed), "target": pa.array(LABELS)}, **options)
    read = arrays.read(path, "parquet")
    rows = RANDOM.permutation(1000)[:300]
    assert np.array_equal(read["x"][rows], IMAGES[rows])
    assert np.array_equal(whole(read["target"]), LABELS)
    assert read["x"].shape == IMAGES.shape
    assert read["x"].dtype == np.float32


@pytest.mark.parametrize("options", OPTIONS)
def test_inspection_finds_rows_shapes_and_ranges(options: dict[str, Any], tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[::3] = -100
    path = table(tmp_path / "file", {"x": lists(IMAGES), "target": pa.array(labels)}, **options)
    facts = arrays.inspect(path, "parquet")
    assert facts.rows == 1000
    assert facts.arrays == (
        ArrayFacts("x", "float32", IMAGES.shape, float(IMAGES.min()), float(IMAGES.max())),
        ArrayFacts("target", "int64", (1000,), 0.0, 6.0, 334),
    )


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "uint64", "float16", "float64"])
def test_every_dtype_keeps_its_values(dtype: str, tmp_path: Path) -> None:
    values = RANDOM.integers(0, 2, (50, 3)).astype(dtype)
    read = arrays.read(table(tmp_path / "file", {"x": lists(values)}), "parquet")
    assert read["x"].dtype == dtype
    assert np.array_equal(whole(read["x"]), values)


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (pa.array([1.0, None, 2.0]), "missing_values"),
        (pa.array([[1.0, 2.0], [None, 2.0], [1.0, 1.0]]), "missing_values"),
        (pa.array([[1.0], None, [2.0]]), "missing_values"),
        (pa.array([[1.0, 2.0], [1.0, 2.0, 3.0], [1.0]]), "lists_differ"),
        (pa.array([[[1.0], [2.0]], [[1.0, 2.0]], [[1.0], [2.0]]]), "lists_differ"),
        (pa.array([[[1.0, 2.0], [2.0]], [[1.0, 2.0], [2.0]], [[1.0], [1.0, 2.0]]]), "lists_differ"),
        (pa.array([[], [], []], pa.list_(pa.float32())), "lists_differ"),
        (pa.array([[], [1.0], [1.0]]), "lists_differ"),
        (pa.array([[1.0, 2.0, 3.0], [], [1.0]]), "lists_differ"),
        (pa.array([1.0, float("nan"), 1.0]), "not_finite"),
    ],
)
def test_values_that_make_no_array_name_their_column(column: Any, code: str, tmp_path: Path) -> None:
    path = table(tmp_path / "file", {"fine": pa.array([1, 2, 3]), "bad": column})
    found = rejection(lambda file: arrays.inspect(file, "parquet"), path)
    assert (found.code, "'bad'" in found.detail) == (code, True)


@pytest.mark.parametrize("place", [0, 499, 999])
def test_a_null_is_found_wherever_it_is(place: int, tmp_path: Path) -> None:
    values: list[float | None] = [1.0] * 1000
    values[place] = None
    path = table(tmp_path / "file", {"x": pa.array(values)}, row_group_size=300)
    assert rejection(lambda file: arrays.inspect(file, "parquet"), path).code == "missing_values"


@pytest.mark.parametrize("columns", [{}, {"x": pa.array([], pa.float32())}])
def test_empty_files_are_refused(columns: dict[str, Any], tmp_path: Path) -> None:
    path = table(tmp_path / "file", columns)
    found = rejection(lambda file: arrays.inspect(file, "parquet"), path)
    assert found.code in ("no_arrays", "no_rows")


def test_damaged_data_is_refused_or_read_never_a_crash(tmp_path: Path) -> None:
    path = table(tmp_path / "file", {"x": lists(IMAGES[:50]), "target": pa.array(LABELS[:50])})
    whole_file = path.read_bytes()
    codes = set()
    for place in range(4, len(whole_file) - 1200, 37):
        data = bytearray(whole_file)
        data[place] ^= 0xFF
        path.write_bytes(data)
        try:
            arrays.inspect(path, "parquet")
        except Rejected as error:
            codes.add(error.code)
    assert "corrupt_file" in codes
    assert codes <= {"corrupt_file", "malformed", "too_large", "lists_differ", "missing_values", "not_finite"}


class _Tagged(pa.ExtensionType):  # type: ignore[misc]
    made: list[bytes] = []

    def __init__(self) -> None:
        super().__init__(pa.int64(), "rankfold.test")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"state"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> "_Tagged":
        cls.made.append(serialized)
        return cls()


def test_types_that_code_makes_are_never_made(tmp_path: Path) -> None:
    pa.register_extension_type(_Tagged())
    try:
        array = pa.ExtensionArray.from_storage(_Tagged(), pa.array([1, 2, 3]))
        path = table(tmp_path / "file", {"x": array})
        pa.parquet.read_table(path)
        assert _Tagged.made, "the file does not hold the type"
        _Tagged.made.clear()
        assert whole(arrays.read(path, "parquet")["x"]).tolist() == [1, 2, 3]
        assert _Tagged.made == []
    finally:
        pa.unregister_extension_type("rankfold.test")


def test_a_column_is_read_in_small_parts(tmp_path: Path) -> None:
    path = table(tmp_path / "file", {"x": lists(np.ones((20_000, 200), np.float32))})
    with parquet.stored(path) as [array]:
        assert max(map(len, array.chunks())) <= 4 << 20
        assert sum(map(len, array.chunks())) == 20_000 * 800


_LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from workers.engine.formats import arrays, parquet
from workers.engine.rows import parts

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20),) * 2)
arrays.inspect(Path(sys.argv[1]), "parquet")
read = arrays.read(Path(sys.argv[1]), "parquet")["x"]
total = sum(int(part[:, 0].astype(int).sum()) for part in parts(read))
print(total, read[np.array([5, 99_999])][:, 0].tolist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on address space")
def test_one_row_group_larger_than_memory_is_read(tmp_path: Path) -> None:
    values = np.zeros((100_000, 600), np.float32)
    values[:, 0] = np.arange(100_000)
    path = table(tmp_path / "file", {"x": lists(values)}, compression="none", use_dictionary=False)
    command = [sys.executable, "-c", _LARGE, str(path)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # as in a job's process
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout) == (0, f"{100_000 * 99_999 // 2} [5.0, 99999.0]\n"), done.stderr
    assert values.nbytes > 2 * (96 << 20)
