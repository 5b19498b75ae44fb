"""How long the stages of a job take: networks of well-known layouts, and budgets that share a decomposition.

    python -m benchmarks.stages [--only NETWORK …] [--case FOLDER] [--rows 160]

The weights and rows of the layouts are random, which is nothing to times and everything to results: the jobs
are whole ones, but what they make is of no use. FOLDER is a case as `benchmarks.cases` takes it; without it
it is the repository's example. Each part writes its own table.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from app.contract.status import Stage
from benchmarks.cases import body, found_in
from benchmarks.jobs import ignore, job_order, run_job, run_stages
from benchmarks.networks import LAYOUTS, write
from benchmarks.tables import markdown, publish
from workers.engine.formats import pt2
from workers.engine.graph.network import Network

_STAGES = [Stage.INSPECT, Stage.PLAN, Stage.DECOMPOSE, Stage.MEASURE, Stage.PACKAGE]
_ONE, _FIVE = (0.5,), (0.7, 0.5, 0.35, 0.25, 0.125)
_ROUNDS = 3
_PART = {"keeps": "five-keeps", "networks": "stages"}  # where each has its place in the page

_HEADER = ["case", "budgets", "plan and decompose", "over one budget's", "of it files", "over one's without"]

Seconds = Mapping[str, float]  # of every stage


def main() -> None:
    """Time the networks one after the other, then the budgets."""
    asked = _options()
    rows: list[list[str]] = []
    for name in asked.only:
        for threads in dict.fromkeys((torch.get_num_threads(), 1)):
            rows.append([name, str(threads), *_shown(network_seconds(name, threads, asked.rows))])
            _write("networks", ["network", "threads", *_STAGES, "whole job"], rows)
    if asked.case or len(asked.only) == len(LAYOUTS):
        [case] = found_in([asked.case] if asked.case else [])
        _write("keeps", _HEADER, _keeps(case))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages")
    parser.add_argument("--only", nargs="*", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--case", type=Path, help="one case, for the time of several budgets")
    parser.add_argument("--rows", type=int, default=160, help="to calibrate and to choose on")
    return parser.parse_args()


def _write(part: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = markdown(header, rows)
    publish(_PART[part], table)
    print(table, file=sys.stderr, flush=True)


def network_seconds(name: str, threads: int, rows: int) -> Seconds:
    """One whole job at half of the MACs on a layout of that name, without fine-tuning."""
    spec = {"task": "none", "target": {"keep": 0.5, "min_agreement": 0.0}, "finetune": {"epochs": 0}}
    with tempfile.TemporaryDirectory() as folder, _threads(threads):
        files = write(name, Path(folder), rows)
        workspace = Path(folder) / "job"
        return run_job(job_order(spec, files, workspace), workspace).seconds


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """While this lasts, torch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shown(seconds: Seconds) -> list[str]:
    return [f"{value:.1f} s" for value in (*(seconds[stage] for stage in _STAGES), sum(seconds.values()))]


def _keeps(case: Path) -> list[list[str]]:
    """The time to decompose for five budgets and for one, with and without the files, in turns: medians."""
    found: dict[tuple[float, ...], list[tuple[float, float]]] = {_ONE: [], _FIVE: []}
    for _ in range(_ROUNDS):
        for keeps, seconds in found.items():
            seconds.append(decomposition_seconds(case, keeps))
    one = _medians(found[_ONE])
    return [
        [case.name, ", ".join(f"{keep:g}" for keep in keeps), *_ratios(_medians(seconds), one)]
        for keeps, seconds in found.items()
    ]


def _medians(seconds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of all, and of what files take of it."""
    whole, files = zip(*seconds, strict=True)
    return median(whole), median(files)


def _ratios(found: tuple[float, float], one: tuple[float, float]) -> list[str]:
    (whole, files), (whole_one, files_one) = found, one
    without = (whole - files) / (whole_one - files_one)
    return [f"{whole:.1f} s", f"{whole / whole_one:.2f}", f"{files:.1f} s", f"{without:.2f}"]


def decomposition_seconds(case: Path, keeps: Sequence[float]) -> tuple[float, float]:
    """Of the stages that compute moments, spectra and all factors, in a job that ends there; and how many of
    these the files of the networks take, which torch exports anew."""
    spec: dict[str, Any] = {**body(case), "target": {"keep": list(keeps)}, "finetune": {"epochs": 0}}
    inputs = {"model": case / "model.pt2", "train": case / "train.npz", "test": case / "test.npz"}
    with tempfile.TemporaryDirectory() as folder, _files_timed() as files:
        workspace = Path(folder)
        order = job_order(spec, inputs, workspace)
        later = list(Stage)[list(Stage).index(Stage.DECOMPOSE) + 1 :]
        run_stages(order.model_copy(update={"done": later}), workspace, ignore)
        stages = (workspace / "stages" / stage / "seconds" for stage in (Stage.PLAN, Stage.DECOMPOSE))
        return sum(float(seconds.read_text()) for seconds in stages), sum(files)


@contextmanager
def _files_timed() -> Iterator[list[float]]:
    """The seconds of every network that is written while this lasts."""
    seconds, write = list[float](), pt2.write

    def timed(network: Network, path: Path) -> None:
        began = time.perf_counter()
        write(network, path)
        seconds.append(time.perf_counter() - began)

    with patch.object(pt2, "write", timed):
        yield seconds


if __name__ == "__main__":
    main()
