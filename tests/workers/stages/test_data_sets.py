"""Whole jobs on data sets of every format: the same rows, the same numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from tests.workers.engine.networks import Convolutional, image_network, seeded
from tests.workers.engine.parquets import table
from tests.workers.engine.pictures import picture, zipped
from tests.workers.stages.jobs import Finished, run_job
from workers.engine.formats import arrays
from workers.engine.rows import whole
from workers.stages import inspect

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)


def pictures(path: Path) -> Path:
    """Sixty of them, in five classes."""
    entries = {f"{'abcde'[place % 5]}/{place}.png": picture(pixels) for place, pixels in enumerate(PIXELS)}
    return zipped(path, entries, mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in every format."""
    folder = tmp_path_factory.mktemp("data")
    made = {"zip": pictures(folder / "data.zip")}
    content = {name: whole(rows) for name, rows in arrays.read(made["zip"], "zip").items()}
    np.savez_compressed(folder / "data.npz", **dict[str, Any](content))
    save_file(content, folder / "data.safetensors")
    columns = {name: pa.array(rows.tolist(), _lists(rows)) for name, rows in content.items()}
    table(folder / "data.parquet", columns, row_group_size=17)
    return made | {name: folder / f"data.{name}" for name in ("npz", "safetensors", "parquet")}


def _lists(rows: Any) -> pa.DataType:
    found = pa.from_numpy_dtype(rows.dtype)
    for _ in rows.shape[1:]:
        found = pa.list_(found)
    return found


def job(workspace: Path, file: Path) -> Finished:
    seeded()
    network = image_network(Convolutional(width=16, classes=5))
    return run_job(workspace, network, files={"train": file}, task="classification", target={"keep": 0.6})


@pytest.fixture(scope="module")
def usual(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return job(tmp_path_factory.mktemp("usual") / "job", files["npz"])


@pytest.mark.parametrize("name", ["parquet", "zip"])
def test_a_job_measures_the_same_whatever_holds_its_rows(
    name: str, files: dict[str, Path], usual: Finished, tmp_path: Path
) -> None:
    found = job(tmp_path / "job", files[name])
    assert found.report.splits == usual.report.splits
    assert found.candidate.layers == usual.candidate.layers
    assert found.candidate.metric == usual.candidate.metric
    assert found.candidate.finetune == usual.candidate.finetune
    assert found.candidate.fidelity == usual.candidate.fidelity
    assert found.candidate.macs < found.report.original.macs


@pytest.mark.parametrize("name", ["npz", "parquet", "zip", "safetensors"])
def test_all_formats_are_described_alike(name: str, files: dict[str, Path]) -> None:
    summary = inspect.dataset(files[name], name)
    assert summary.rows == 60
    described = {
        array.name: (array.dtype, array.shape, array.minimum, array.maximum) for array in summary.arrays
    }
    assert described == {"image": ("float32", [60, 3, 8, 8], -2.0, 2.0), "target": ("int64", [60], 0.0, 4.0)}
    classes = next(array.classes for array in summary.arrays if array.name == "target")
    assert classes == (["a", "b", "c", "d", "e"] if name == "zip" else None)
