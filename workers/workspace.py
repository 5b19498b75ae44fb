"""The scratch folder of one attempt, and the transfer of its files from and to the blob store.

What lies in it was written by a process that handled untrusted bytes: only plain files leave it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from app.blobs import BlobMissing, BlobStore
from app.contract.status import Stage
from app.queue.lifecycle import Lease, Made
from workers.messages import Order

_SCRATCH = "rankfold-scratch-"
_LOCK = "lock"
_CANDIDATE = re.compile(r"candidate-(\d+)[.-].+")
_LARGEST_RESULT = 64 << 20  # bytes


class Workspace:
    """The folders of `workers.messages`, below `root`."""

    def __init__(self, store: BlobStore, lease: Lease, root: Path) -> None:
        self._store = store
        self._lease = lease
        self.root = root
        for name in ("inputs", "stages", "artifacts", "tmp"):
            (root / name).mkdir()

    def fetch_input(self, role: str, upload_id: str) -> None:
        """Bring an upload to `inputs/{role}`; raises `BlobMissing`."""
        self._store.get_file(f"uploads/{upload_id}", self.root / "inputs" / role)

    def fetch_checkpoints(self, checkpoints: Mapping[str, int]) -> list[Stage]:
        """Bring the finished stages' files; the stages that are complete, up to the first that is not."""
        done: list[Stage] = []
        for stage in Stage:
            if stage not in checkpoints:
                continue
            try:
                self._fetch_stage(stage, self._checkpoint(stage, checkpoints[stage]))
            except BlobMissing:
                break
            done.append(stage)
        return done

    def write_order(self, order: Order) -> None:
        """Say in `order.json` what the child is to do."""
        (self.root / "order.json").write_text(order.model_dump_json())

    def write_latencies(self, known: Mapping[str, Mapping[str, float]]) -> None:
        """Tell the child what layers are known to take on this machine."""
        (self.root / "latencies.json").write_text(json.dumps(known))

    def keep_stage(self, stage: Stage) -> None:
        """Store a finished stage's files as this attempt's checkpoint, and last the list of them."""
        self._store_stage(stage, self._checkpoint(stage, self._lease.attempt))

    def save_stage(self, stage: Stage) -> None:
        """Store what an unfinished stage saved, in the place of what it had before."""
        self._store_stage(stage, self._unfinished(stage))

    def fetch_saved(self, stage: Stage) -> None:
        """Bring what an earlier attempt saved of an unfinished stage, where it did."""
        with suppress(BlobMissing):
            self._fetch_stage(stage, self._unfinished(stage))

    def result(self) -> str:
        """The text of `result.json`; raises `ValueError` if it is no plain file of a reasonable size."""
        path = self.root / "result.json"
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RESULT:
            raise ValueError("result.json is no plain file of a reasonable size")
        return path.read_text()

    def store_artifacts(self) -> list[Made]:
        """Store the files in `artifacts/` as this attempt's; their rows."""
        return [self._store_artifact(path) for path in _plain_files(self.root / "artifacts")]

    def _store_artifact(self, path: Path) -> Made:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        candidate = _CANDIDATE.fullmatch(path.name)
        made = Made(
            name=path.name,
            format=path.suffix.removeprefix("."),
            candidate=int(candidate[1]) if candidate else None,
            bytes=path.stat().st_size,
            sha256=digest,
        )
        self._store.put_file(f"artifacts/{self._lease.job_id}/{self._lease.attempt}/{path.name}", path)
        return made

    def _store_stage(self, stage: Stage, key: str) -> None:
        folder = self.root / "stages" / stage
        names = []
        for path in _plain_files(folder):
            name = path.relative_to(folder).as_posix()
            with suppress(FileNotFoundError):  # the same
                self._store.put_file(f"{key}/{name}", path)
                names.append(name)
        contents = self.root.parent / "contents.json"
        contents.write_text(json.dumps(names))
        self._store.put_file(f"{key}.json", contents)

    def _fetch_stage(self, stage: Stage, key: str) -> None:
        folder = self.root / "stages" / stage
        contents = self.root.parent / "contents.json"
        self._store.get_file(f"{key}.json", contents)
        folder.mkdir(exist_ok=True)
        for name in json.loads(contents.read_text()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store.get_file(f"{key}/{name}", path)

    def _checkpoint(self, stage: Stage, attempt: int) -> str:
        return f"checkpoints/{self._lease.job_id}/{attempt}/{stage}"

    def _unfinished(self, stage: Stage) -> str:
        # Every attempt's: whichever was stored last, its owner knows whether it can go on from it.
        return f"checkpoints/{self._lease.job_id}/unfinished/{stage}"


def _plain_files(folder: Path) -> list[Path]:
    """The files below `folder`; raises `ValueError` for a link, a pipe or anything else that is not one."""
    files = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() and not folder.is_symlink() else []:
        with suppress(FileNotFoundError):  # of an unfinished stage: the child is at work there
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                files.append(path)
            elif not stat.S_ISDIR(mode):
                raise ValueError("a job left something that is not a plain file")
    return files


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder that is gone afterwards; those of killed workers are removed on the way."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    try:
        with _locked(folder / _LOCK):
            root = folder / "job"
            root.mkdir()
            yield root
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock, which ends with this process; raises `OSError` if another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        if not (folder / _LOCK).exists():  # just being made by another worker
            continue
        try:
            with _locked(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its worker lives, or it is another user's
            continue
