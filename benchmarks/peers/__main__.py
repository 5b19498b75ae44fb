"""`python -m benchmarks.peers`: compress the same networks by ours and by the peers; write
docs/results.md."""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.peers import cells, counter, plots, table
from benchmarks.peers.case import Case, named
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.peers.cells import Cell
from benchmarks.peers.environments import ROOT, python
from benchmarks.tables import PAGE, publish

Job = tuple[str, float | None, Callable[[], Cell]]


def main() -> None:
    """Run every cell that is asked for, one after the other, and write page and plots."""
    options = _options()
    warnings.simplefilter("ignore")  # torch's, about itself
    torch.set_num_threads(1)
    measured = []
    for case in named(options.cases, options.state / "runs"):
        found = cells.timed(case, _cells(case, options))
        cost = case.macs(case.original), counter.parameters(case.original.module)
        measured.append(table.Measured(case.name, *cost, len(case.test), found))
    drawn = plots.write(measured, options.page.parent / "img")
    pictures = {shown: os.path.relpath(file, options.page.parent) for shown, file in drawn.items()}
    publish("peers", table.section(measured, pictures), options.page)


def _cells(case: Case, options: argparse.Namespace) -> list[Cell]:
    """Every cell of a case but its latency, kept one by one, so that a run that was cut off can go on."""
    kept = case.scratch / "cells.json"
    done = cells.load(kept) if options.resume and kept.exists() else []
    known = {(cell.who, cell.keep): cell for cell in done}
    found: list[Cell] = []
    for who, keep, make in _jobs(case, options):
        found.append(known.get((who, keep)) or make())
        print(found[-1], flush=True)
        cells.save(kept, found)
    return found


def _jobs(case: Case, options: argparse.Namespace) -> Iterator[Job]:
    yield cells.ORIGINAL, None, partial(cells.original, case)
    yield cells.CONTROL, None, partial(cells.control, case, options.epochs)
    for keep in options.keep:
        if OURS in options.only:
            yield OURS, keep, partial(cells.ours, case, keep, options.epochs)
        for peer in (peer for peer in PEERS if peer.package in options.only):
            interpreter = python(peer, options.state).absolute()
            for method in peer.methods:
                make = partial(cells.theirs, case, peer, method, keep, options.epochs, interpreter)
                yield cells.label(peer, method), keep, make


def _options() -> argparse.Namespace:
    everybody = [OURS, *(peer.package for peer in PEERS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--cases",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        default=[Path("examples/fashion")],
        help="with model.pt2, train.npz and test.npz",
    )
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25], help="shares of the MACs")
    parser.add_argument("--only", nargs="+", choices=everybody, default=everybody)
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning")
    parser.add_argument(
        "--state", type=Path, default=ROOT / "var" / "peers", help="for environments and networks"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="what is written")
    parser.add_argument("--resume", action="store_true", help="keep the cells of a run that was cut off")
    return parser.parse_args()


if __name__ == "__main__":
    main()
