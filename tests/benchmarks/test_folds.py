"""Folds: every row is tested once, by what was made without it."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from benchmarks.folds import FOLDS, folds, pooled


def _case(folder: Path, train: int, test: int) -> Path:
    (folder / "model.pt2").write_bytes(b"model")
    for split, first, rows in (("train", 0, train), ("test", train, test)):
        np.savez(folder / f"{split}.npz", x=np.arange(first, first + rows)[:, None])
    return folder


def test_a_case_of_many_test_rows_is_itself(tmp_path: Path) -> None:
    case = _case(tmp_path, train=200, test=100)
    assert folds(case, tmp_path / "folds") == [case]


@pytest.mark.parametrize(("train", "test"), [(32, 16), (7, 3), (1, 2)])
def test_folds_test_on_every_row_once(tmp_path: Path, train: int, test: int) -> None:
    found = folds(_case(tmp_path, train, test), tmp_path / "folds")
    tested = [np.load(fold / "test.npz")["x"].ravel().tolist() for fold in found]
    assert len(found) == FOLDS
    assert sorted(chain(*tested)) == list(range(train + test))
    for fold, rows in zip(found, tested, strict=True):
        trained = np.load(fold / "train.npz")["x"].ravel().tolist()
        assert sorted(trained + rows) == list(range(train + test))
        assert (fold / "model.pt2").read_bytes() == b"model"


def test_what_folds_measured_is_pooled() -> None:
    rows = [{"task": "none", "macs": share, "values": [share, 1.0]} for share in (0.25, 0.75)]
    assert pooled(rows, ["values"]) == {"task": "none", "macs": 0.5, "values": [0.25, 1.0, 0.75, 1.0]}
    assert pooled([*rows, None], ["values"]) is None
