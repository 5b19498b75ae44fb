"""Whole jobs on networks of one's own: what remains of each at several budgets, without fine-tuning.

    python -m benchmarks.cases [FOLDER …] [--write NAME] [--resume]

FOLDER has a folder for each case, which holds

    model.pt2              the network, as for an upload
    train.npz, test.npz    the rows to calibrate and choose on, and those that the table is measured on
    case.json              optional: more of the job's body, such as {"task": "language-modeling"}

Without `case.json` a case whose test rows have a `target` is a classification. Without FOLDER the case is the
repository's example. `--write` puts the tables in their place in docs/results.md; `--resume` takes what an
earlier run left in var/benchmarks for jobs of the same name.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.contract.report import Candidate, Metric, Report
from benchmarks.jobs import WORK, job_order, kept, run_job
from benchmarks.tables import markdown, publish
from workers.engine.errors import EngineError

_FOLDER = WORK / "cases"
_EXAMPLE = Path(__file__).parents[1] / "examples"
_KEEPS = (0.7, 0.5, 0.35, 0.25)
_HEADER = ["case", "of", "keep", "metric", "95 %", "parameters", "MACs", "time", "weighting"]
_STAGES = ["inspect", "plan", "decompose", "measure", "package"]


def main() -> None:
    """Print the results of every case, then the seconds they took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--write", metavar="NAME", help="a place in docs/results.md")
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    if not asked.resume:
        shutil.rmtree(_FOLDER, ignore_errors=True)
    results: list[list[str]] = []
    seconds: list[list[str]] = []
    for case in found_in(asked.folders):
        for of in ("macs", "parameters"):
            found = kept(_FOLDER / f"{case.name}-{of}.json", partial(_run, case, of))
            report = Report.model_validate(found["report"])
            results += _results(case.name, of, report, found["unreachable"])
            seconds.append([case.name, _currency(of), *(f"{report.seconds[s]:.0f} s" for s in _STAGES)])
            print(markdown(_HEADER, results[-len(_KEEPS) - 1 :]), file=sys.stderr, flush=True)
    tables = "\n\n".join([markdown(_HEADER, results), markdown(["case", "of", *_STAGES], seconds)])
    print(tables)
    if asked.write:
        publish(asked.write, tables)


def _run(case: Path, of: str) -> dict[str, Any]:
    """The report of one job, and the budgets that no ranks reach."""
    keeps = list(_KEEPS)
    unreachable: list[float] = []
    while True:
        try:
            report = _job(case, {"target": {"of": of, "keep": keeps}})
            return {"report": report.model_dump(mode="json"), "unreachable": unreachable}
        except EngineError as error:
            if error.code != "budget_unreachable" or len(keeps) == 1:
                raise
            unreachable.append(keeps.pop())


def _job(case: Path, target: Mapping[str, Any]) -> Report:
    inputs = {"model": case / "model.pt2", "train": case / "train.npz", "test": case / "test.npz"}
    spec = {**body(case), **target, "finetune": {"epochs": 0}}
    with tempfile.TemporaryDirectory() as folder:
        return run_job(job_order(spec, inputs, Path(folder)), Path(folder))


def found_in(folders: Sequence[Path]) -> list[Path]:
    """The cases that folders are or have in them; without folders the repository's example."""
    there = folders or [_EXAMPLE]
    return [
        path.parent
        for folder in there
        for path in sorted([*folder.glob("model.pt2"), *folder.glob("*/model.pt2")])
    ]


def body(case: Path) -> dict[str, Any]:
    """What is said of the case, or follows from its rows."""
    stated = case / "case.json"
    if stated.exists():
        body: dict[str, Any] = json.loads(stated.read_text())
        return body
    with np.load(case / "test.npz", allow_pickle=False) as arrays:
        return {"task": "classification" if "target" in arrays.files else "none"}


def _results(name: str, of: str, report: Report, unreachable: Sequence[float]) -> Iterator[list[str]]:
    of = _currency(of)
    yield [name, of, "original", *_metric(report.original.metric), "1", "1", "1", ""]
    for candidate in report.candidates:
        yield [name, of, f"{candidate.keep:g}", *_candidate(candidate, report)]
    for keep in reversed(unreachable):
        yield [name, of, f"{keep:g}", "unreachable", *[""] * 5]


def _candidate(candidate: Candidate, report: Report) -> list[str]:
    """How good it is, by labels or else by agreement with the original, and what it costs."""
    original, close = report.original, candidate.fidelity
    judged = _metric(candidate.metric)
    if candidate.metric is None and close.top1_agreement is not None:
        judged = [f"agrees {close.top1_agreement:.3f}", ""]
    return [
        *judged,
        f"{candidate.parameters / original.parameters:.3f}",
        f"{candidate.macs / original.macs:.3f}",
        _time(candidate, report),
        candidate.weighting.value,
    ]


def _metric(metric: Metric | None) -> list[str]:
    if metric is None:
        return ["", ""]
    low, high = metric.ci95
    return [f"{metric.name} {metric.value:.4g}", f"{low:.4g} – {high:.4g}"]


def _time(candidate: Candidate, report: Report) -> str:
    """The median in ONNX Runtime over the original's."""
    if not all("onnxruntime" in measured.latency for measured in (candidate, report.original)):
        return ""
    ours, original = (each.latency["onnxruntime"].p50_ms for each in (candidate, report.original))
    return f"{ours / original:.2f}"


def _currency(of: str) -> str:
    return "MACs" if of == "macs" else of


if __name__ == "__main__":
    main()
