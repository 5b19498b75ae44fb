"""The example is what its README says, and its script makes such files."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "fashion"
FILES = ("model.pt2", "train.npz", "test.npz")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A tiny data set in the form of the real one: a bright stripe whose place tells the class."""
    folder = tmp_path / "published"
    folder.mkdir()
    for prefix, count in (("train", 80), ("t10k", 40)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.zeros((count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 4] = 255
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return folder


def make(published: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(FOLDER / "make_example.py"),
        str(published),
        "--out",
        str(out),
        "--epochs",
        "1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_the_script_makes_files_that_load_and_the_same_ones_again(published: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = make(published, tmp_path / name)
        assert done.returncode == 0, done.stderr
    data = {name: np.load(tmp_path / "one" / f"{name}.npz") for name in ("train", "test")}
    assert data["train"]["x"].shape == (80, 1, 28, 28)
    assert data["test"]["target"].tolist() == [label % 10 for label in range(40)]
    first, second = (torch.export.load(tmp_path / name / "model.pt2") for name in ("one", "two"))
    assert first.module()(torch.zeros(7, 1, 28, 28)).shape == (7, 10)
    assert first.state_dict.keys() == second.state_dict.keys()
    for name, weight in first.state_dict.items():
        assert torch.equal(weight, second.state_dict[name]), name
    assert str(FOLDER).encode() not in (tmp_path / "one" / "model.pt2").read_bytes()


def test_a_file_that_is_no_idx_is_named(published: Path, tmp_path: Path) -> None:
    name = "train-images-idx3-ubyte.gz"
    with gzip.open(published / name, "wb") as file:
        file.write(b"no images here")
    done = make(published, tmp_path / "out")
    assert done.returncode != 0
    assert f"{name} is not an IDX file" in done.stderr


def test_the_example_is_as_good_as_its_readme_says_and_small() -> None:
    test = np.load(FOLDER / "test.npz")
    model = torch.export.load(FOLDER / "model.pt2").module()
    with torch.no_grad():
        predicted = model(torch.from_numpy(test["x"]).float()).argmax(1).numpy()
    accuracy = (predicted == test["target"]).mean()
    assert f"{100 * accuracy:.1f} %" in (FOLDER / "README.md").read_text()
    assert accuracy > 0.91
    assert sum((FOLDER / name).stat().st_size for name in FILES) < 12e6


@pytest.mark.parametrize(("name", "rows"), [("train", 6000), ("test", 2000)])
def test_every_class_is_there_equally_often(name: str, rows: int) -> None:
    data = np.load(FOLDER / f"{name}.npz")
    assert np.bincount(data["target"]).tolist() == [rows // 10] * 10
    assert data["x"].shape == (rows, 1, 28, 28)
