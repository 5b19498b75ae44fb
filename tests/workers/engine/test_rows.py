"""Rows come from the file when they are asked for, and only these."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.workers.engine.hostile import rejection
from workers.engine.rows import ChosenRows, FileRows, parts, whole

VALUES = np.arange(7 * 2 * 3, dtype=np.int32).reshape(7, 2, 3)


def in_file(path: Path, values: NDArray[Any], position: int = 0) -> FileRows:
    path.write_bytes(b"x" * position + values.tobytes())
    return FileRows(os.open(path, os.O_RDONLY), str(values.dtype), values.shape, position)


@given(rows=st.lists(st.integers(0, 6), max_size=12), position=st.integers(0, 9))
def test_any_rows_in_any_order(
    rows: list[int], position: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stored = in_file(tmp_path_factory.mktemp("rows") / "file", VALUES, position)
    numbers = np.array(rows, np.int64)
    assert stored[numbers].dtype == np.int32
    assert np.array_equal(stored[numbers], VALUES[numbers])


@given(first=st.permutations(range(7)), second=st.lists(st.integers(0, 3), min_size=1))
def test_a_choice_of_a_choice_asks_the_array_itself(first: list[int], second: list[int]) -> None:
    once = ChosenRows(VALUES, np.array(first[:4]))
    twice = ChosenRows(once, np.array(second))
    assert twice._array is VALUES
    assert (len(twice), twice.shape) == (len(second), (len(second), 2, 3))
    assert twice.dtype == np.int32
    assert np.array_equal(whole(twice), VALUES[first][:4][second])


@pytest.mark.parametrize("row", [-1, 7])
def test_rows_that_do_not_exist_are_no_others(row: int, tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        in_file(tmp_path / "file", VALUES)[np.array([row])]


def test_what_is_given_is_a_copy(tmp_path: Path) -> None:
    stored = in_file(tmp_path / "file", VALUES)
    stored[np.array([0])][:] = -1
    assert np.array_equal(whole(stored), VALUES)


def test_a_file_that_was_cut_is_no_zeros(tmp_path: Path) -> None:
    stored = in_file(tmp_path / "file", VALUES)
    os.truncate(tmp_path / "file", 50)
    assert rejection(lambda _: whole(stored), tmp_path / "file").code == "truncated_file"


def test_parts_are_small_and_all_rows_in_order() -> None:
    values = np.arange(1_000_000, dtype=np.float64).reshape(-1, 4)
    found = list(parts(values))
    assert max(part.nbytes for part in found) <= 1 << 20
    assert np.array_equal(np.concatenate(found), values)


def test_a_row_larger_than_a_part_is_read_alone() -> None:
    assert [len(part) for part in parts(np.zeros((3, 1 << 20), np.float32))] == [1, 1, 1]


def test_descriptors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(VALUES.tobytes())
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    stored = FileRows(descriptor, "int32", VALUES.shape)
    assert len(stored) == 7
    del stored
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


_LARGE = """
import resource, sys
from pathlib import Path
from typing import Any
import torch
from workers.engine.checkpoint import fingerprint
from workers.engine.data import Examples, split
from workers.engine.formats import arrays
from workers.engine.graph.network import Input

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (96 << 20),) * 2)
path = Path(sys.argv[1])
arrays.inspect(path, "safetensors")
rows = Examples.of(arrays.read(path, "safetensors"), (Input("x", torch.float32, (1, 1024)),))
splits = split(rows, None, 0)
fingerprint([], [splits.selection])
print(sum(splits.sizes.values()), sum(len(x) for (x,), _ in splits.calibration.batches(64)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits on address space")
def test_data_larger_than_memory_is_inspected_split_and_read(tmp_path: Path) -> None:
    rows, header = 100_000, b'{"x":{"dtype":"F32","shape":[100000,1024],"data_offsets":[0,409600000]}}'
    with (tmp_path / "file").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * 4096)  # zeros that take no disk
    command = [sys.executable, "-c", textwrap.dedent(_LARGE), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stdout.split()) == (0, ["100000", "8000"]), done.stderr
    assert rows * 4096 > 4 * (96 << 20)
