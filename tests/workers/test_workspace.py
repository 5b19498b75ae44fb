"""What a stage has saved is stored while the child goes on writing it."""

from pathlib import Path

import pytest

from app.blobs import open_store
from app.contract.status import Stage
from app.queue.lifecycle import Lease
from workers import workspace
from workers.workspace import Workspace


def _workspace(folder: Path, name: str) -> Workspace:
    root = folder / name / "job"
    root.mkdir(parents=True)
    store = open_store((folder / "blobs").as_uri())
    return Workspace(store, Lease("job_1", 1, 30.0), root)


def _files(of: Workspace) -> dict[str, bytes]:
    folder = of.root / "stages" / Stage.FINETUNE
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_what_vanishes_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = _workspace(tmp_path, "ours"), _workspace(tmp_path, "theirs")
    folder = ours.root / "stages" / Stage.FINETUNE
    folder.mkdir()
    (folder / "state").write_bytes(b"whole")
    listed = [folder / "state.new", folder / "state"]
    monkeypatch.setattr(workspace, "_plain_files", lambda _: listed)
    ours.save_stage(Stage.FINETUNE)
    theirs.fetch_saved(Stage.FINETUNE)
    assert _files(theirs) == {"state": b"whole"}


def test_nothing_saved_is_nothing_fetched(tmp_path: Path) -> None:
    ours = _workspace(tmp_path, "ours")
    ours.fetch_saved(Stage.FINETUNE)
    assert _files(ours) == {}
