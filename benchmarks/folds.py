"""Testing on every row of a case that has few: folds, each a case of its own whose test rows are the others'
training rows."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDS = 3
_FEW = 100  # test rows: of fewer a comparison sees only what is large

Row = dict[str, Any]


def folds(case: Path, folder: Path) -> list[Path]:
    """The case alone, or, where it tests on few rows, its folds, written into `folder`.

    Training and test rows are dealt in turns, so that a fold tests on a third of them all and every row is
    tested on once, by a network that was not made with it.
    """
    train, test = (dict(np.load(case / f"{split}.npz", allow_pickle=False)) for split in ("train", "test"))
    if len(next(iter(test.values()))) >= _FEW:
        return [case]
    together = {name: np.concatenate([train[name], test[name]]) for name in test}
    return [_fold(case, folder / f"fold-{place}", together, place) for place in range(FOLDS)]


def _fold(case: Path, folder: Path, arrays: dict[str, Any], place: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.pt2", "case.json"):
        if (case / name).exists():
            shutil.copy(case / name, folder / name)
    tested = np.arange(len(next(iter(arrays.values())))) % FOLDS == place
    np.savez(folder / "test.npz", **{name: array[tested] for name, array in arrays.items()})
    np.savez(folder / "train.npz", **{name: array[~tested] for name, array in arrays.items()})
    return folder


def pooled(rows: Sequence[Row | None], values: Sequence[str]) -> Row | None:
    """One row of what folds measured: the `values`, lists of a number per test row, one after the other, and
    the mean share of MACs. None where a fold has none."""
    there = [row for row in rows if row]
    if len(there) < len(rows):
        return None
    lists = {value: [number for row in there for number in row[value]] for value in values}
    return {**there[0], **lists, "macs": float(np.mean([row["macs"] for row in there]))}
