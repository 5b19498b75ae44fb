"""The time of a greedy choice of ranks, as aimet-torch does it, over that of ours.

    python -m benchmarks.peers.greedy [--cases FOLDER …] [--keep 0.5 …] [--rows 32 512]

Both choose and decompose for the same budget, on one thread, and are given the same rows of the same network;
nothing is trained. Cases are those of `benchmarks.peers`.
"""

import argparse
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from app.contract.status import Stage
from benchmarks.peers import cells
from benchmarks.peers.case import Case, named
from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.environments import ROOT, PeerFailed, python
from benchmarks.tables import markdown, publish

_PEER = next(peer for peer in PEERS if peer.module == "aimet")
_THEIRS = [column for method in _PEER.methods for column in (cells.label(_PEER, method), "over ours")]
_HEADER = ["case", "keep", "rows", "ours", *_THEIRS]
_NOT_DONE = (Stage.FINETUNE, Stage.MEASURE, Stage.PACKAGE)


@dataclass(frozen=True)
class Times:
    """Seconds of the processor that ours took, and each method of the peer's: or what went wrong there."""

    ours: float
    theirs: dict[str, float | str]

    def shown(self) -> list[str]:
        """For the table: every time, and each of theirs over ours."""
        found = [f"{self.ours:.1f} s"]
        for taken in self.theirs.values():
            found += (
                [f"{taken:.1f} s", f"{taken / self.ours:.1f}"] if isinstance(taken, float) else [taken, "–"]
            )
        return found


def main() -> None:
    """Time case after case, and write the table."""
    asked = _options()
    warnings.simplefilter("ignore")  # torch's, about itself
    torch.set_num_threads(1)
    interpreter = python(_PEER, asked.state).absolute()
    rows: list[list[str]] = []
    for case in _cases(asked):
        for keep in asked.keep:
            times = measured(case, keep, _PEER, interpreter)
            rows.append([case.name, f"{keep:g}", str(case.rows), *times.shown()])
            publish("greedy", markdown(_HEADER, rows))
            print(rows[-1], flush=True)


def _cases(asked: argparse.Namespace) -> Iterator[Case]:
    for rows in asked.rows:
        yield from named(asked.cases, asked.state / "greedy" / str(rows), rows)


def measured(case: Case, keep: float, peer: Peer, interpreter: Path) -> Times:
    """Time ours and every method of the peer's, one after the other."""
    folder = case.scratch / f"{keep:g}"
    shutil.rmtree(folder, ignore_errors=True)
    theirs = {
        method: _asked(case, peer, method, keep, interpreter, folder / method) for method in peer.methods
    }
    return Times(cells.run(case, keep, 1, folder / "ours", skip=_NOT_DONE), theirs)


def _asked(case: Case, peer: Peer, method: str, keep: float, interpreter: Path, folder: Path) -> float | str:
    folder.mkdir(parents=True)
    try:
        return float(cells.ask(case, peer, method, keep, interpreter, folder)["seconds"])
    except PeerFailed as failure:
        return str(failure).replace("|", "/")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.greedy")
    parser.add_argument("--cases", type=Path, nargs="+", metavar="FOLDER", default=[Path("examples/fashion")])
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5], help="shares of the MACs")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 512], help="that both may look at")
    parser.add_argument(
        "--state", type=Path, default=ROOT / "var" / "peers", help="for environments and files"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
