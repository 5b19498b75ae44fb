"""What each step of a job gains: from plain decompositions at uniform ranks to everything that there is.

    python -m benchmarks.ablation [FOLDER …] [--keep 0.25] [--seeds 3] [--epochs 3] [--resume]

A FOLDER is a case as `benchmarks.cases` takes it, or has cases in it; without one the case is the
repository's example. Every line is a job; what was measured so far is in var/benchmarks, and `--resume` goes
on from there.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest.mock import patch

from app.contract.report import LOWER_IS_BETTER, Candidate, Metric
from app.contract.status import Stage
from benchmarks.cases import body, found_in
from benchmarks.jobs import WORK, job_order, run_job, timed_in_passing
from benchmarks.tables import markdown, publish
from workers.engine.data import split
from workers.engine.errors import EngineError
from workers.stages import context

_FOLDER = WORK / "ablation"
_RESULTS = "results.jsonl"
_HEADER = ["case", "", "MACs", "metric", "mean", "± of seeds", "± of rows", "gain", "± of seeds"]
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Quantiles of Student's t at 97.5 %, for 1, 2, … degrees of freedom."""

Row = dict[str, Any]  # of the results: what was asked for, and what came out


@dataclass(frozen=True)
class Line:
    """A job that is one step further than another, `over` which its gain is; `finetune` says which part of
    that it takes, of "refine", "epochs" and further fields. `goes_on` from the factors of another line, where
    that differs in what follows them only."""

    asked: Mapping[str, Any]
    over: str | None = None
    finetune: Mapping[str, Any] | None = None
    trains: bool = False
    goes_on: bool = False


_SIMPLE = {"methods": ["svd", "tucker"]}
_UNIFORM = {**_SIMPLE, "ranks": {"selection": "fraction"}}
_PLAIN, _WHITENED, _TWO_SIDED = "plain SVD and Tucker, uniform ranks", "input-whitened", "two-sided"
_BUDGET, _METHODS = "ranks from our budget", "all default methods"
_REFINED, _TRAINED = "blocks refined", "distilled"
ORIGINAL, CONTROL = "original", "control"


def _weighted(weighting: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"calibration": {"weighting": weighting}, **asked}


def _trained(**finetune: Any) -> Line:
    """A line of the full method but for something in its training."""
    goes_on = finetune.get("stages", 1) == 1
    return Line(
        _weighted("two_sided", {}), _TRAINED, {"refine": True, **finetune}, trains=True, goes_on=goes_on
    )


LINES: dict[str, Line] = {
    _PLAIN: Line(_weighted("none", _UNIFORM)),
    _WHITENED: Line(_weighted("inputs", _UNIFORM), _PLAIN),
    _TWO_SIDED: Line(_weighted("two_sided", _UNIFORM), _WHITENED),
    _BUDGET: Line(_weighted("two_sided", _SIMPLE), _TWO_SIDED),
    _METHODS: Line(_weighted("two_sided", {}), _BUDGET),
    _REFINED: Line(_weighted("two_sided", {}), _METHODS, {"refine": True}, goes_on=True),
    _TRAINED: Line(_weighted("two_sided", {}), _REFINED, {"refine": True}, trains=True, goes_on=True),
    "labels alone": _trained(distill=False),
    "in two stages": _trained(stages=2),
    "Frobenius decay": _trained(decay=1e-4),
    "patience of one epoch": _trained(patience=1),
}


def main() -> None:
    """Measure line after line, and put what there is into the page after each case."""
    asked = _options()
    if not asked.resume:
        shutil.rmtree(_FOLDER, ignore_errors=True)
    rows: list[Row] = []
    for case in found_in(asked.folders):
        for seed in range(asked.seeds):
            rows += _lines(case, {"seed": seed, "keep": asked.keep, "epochs": asked.epochs})
            table = markdown(_HEADER, table_of(rows))
            publish("ablation", table)
            print(table, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--keep", type=float, default=0.25, help="of the MACs")
    parser.add_argument("--seeds", type=int, choices=range(1, len(_T975) + 2), default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of the lines that train")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def _lines(case: Path, settings: Mapping[str, Any]) -> Iterator[Row]:
    """Every line of a case for one seed, known ones as they were measured."""
    path, folder = _FOLDER / _RESULTS, _FOLDER / case.name / " ".join(map(str, settings.values()))
    known = {_key(row): row for row in stored(path)}
    for name, line in LINES.items():
        row: Row = {"case": case.name, "line": name, **settings}
        if _key(row) not in known:
            row |= _measured(case, line, settings, folder / name, folder / _METHODS)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        yield known.get(_key(row), row)
    shutil.rmtree(folder, ignore_errors=True)


def stored(path: Path) -> list[Row]:
    """The rows in a file of results; a last line that was cut off is none."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("case", "line", "seed", "keep", "epochs"))


def _measured(
    case: Path, line: Line, settings: Mapping[str, Any], workspace: Path, factors: Path
) -> dict[str, Any]:
    """What a line's job found; nothing where no ranks meet the budget."""
    if line.goes_on:
        _take_over(factors, workspace)
    inputs = {"model": case / "model.pt2", "train": case / "train.npz", "test": case / "test.npz"}
    try:
        with alike():
            report = run_job(job_order(spec_of(line, body(case), settings), inputs, workspace), workspace)
    except EngineError as error:
        if error.code != "budget_unreachable":
            raise
        return {}
    [candidate] = report.candidates
    control = report.control.metric if report.control else None
    return {
        "macs": candidate.macs / report.original.macs,
        "found": _judged(candidate.metric, candidate),
        ORIGINAL: _judged(report.original.metric, None),
        CONTROL: _judged(control, None) if control else None,
    }


def spec_of(line: Line, case: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A job's body: the case's own, and what the line says. All lines have the same steps, if any."""
    epochs = settings["epochs"] if line.trains else 0
    return {
        **case,
        **line.asked,
        "calibration": {**case.get("calibration", {}), **line.asked["calibration"]},
        "finetune": {**case.get("finetune", {}), **(line.finetune or {}), "epochs": epochs},
        "target": {"of": "macs", "keep": settings["keep"], "min_agreement": 0.0},
        "outputs": ["pt2"],
        "seed": settings["seed"],
    }


def _take_over(earlier: Path, workspace: Path) -> None:
    """Let a job go on from the factors of an earlier one, if these are still there."""
    for stage in (Stage.INSPECT, Stage.PLAN, Stage.DECOMPOSE):
        made, taken = earlier / "stages" / stage, workspace / "stages" / stage
        if (made / "seconds").exists() and not taken.exists():
            taken.parent.mkdir(parents=True, exist_ok=True)
            taken.symlink_to(made.resolve())


@contextmanager
def alike() -> Iterator[None]:
    """While this lasts, every job divides its rows like one that trains, so that all lines calibrate, choose
    and measure on the same; and times and memory are looked at in passing only."""
    with (
        timed_in_passing(),
        patch.object(context, "split", lambda train, test, seed, **_: split(train, test, seed)),
    ):
        yield


def _judged(metric: Metric | None, candidate: Candidate | None) -> dict[str, Any]:
    """The metric with its interval over rows; where there is none, how often outputs name the original's
    class."""
    if metric is not None:
        return {"name": metric.name, "value": metric.value, "interval": list(metric.ci95)}
    value = candidate.fidelity.top1_agreement if candidate else 1.0
    return {"name": "agreement", "value": value, "interval": None}


def table_of(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each line of each case, then the control's: `_HEADER` has the columns."""
    found: list[list[str]] = []
    for case in dict.fromkeys(row["case"] for row in rows):
        by_line = {
            name: [row for row in rows if (row["case"], row["line"]) == (case, name)] for name in LINES
        }
        met = [row for row in rows if row["case"] == case and "found" in row]
        if met:
            found.append([case, ORIGINAL, "1.000", *_summary([met[0][ORIGINAL]]), "", ""])
        trained = [row[CONTROL] for row in by_line[_TRAINED] if row.get(CONTROL)]
        for name, own in by_line.items():
            if own:
                found.append([case, name, *_entry(own, by_line.get(LINES[name].over or "", []))])
            if name == _TRAINED and trained:
                found.append([case, CONTROL, "1.000", *_summary(trained), "", ""])
    return found


def _entry(own: Sequence[Row], other: Sequence[Row]) -> list[str]:
    """What a line's jobs found, and what they gain over another's with the same seeds."""
    met = [row for row in own if "found" in row]
    if len(met) < len(own):
        return ["unreachable", *[""] * (len(_HEADER) - 3)]
    macs = f"{fmean(row['macs'] for row in met):.3f}"
    return [macs, *_summary([row["found"] for row in met]), *_gain(met, other)]


def _summary(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metric's name, its mean over seeds, and the half width of two 95 % intervals of it: over seeds, and
    over the rows, which is that of one seed, on average."""
    values = [each["value"] for each in found]
    rows = [(each["interval"][1] - each["interval"][0]) / 2 for each in found if each["interval"]]
    return [
        found[0]["name"],
        _number(fmean(values)),
        _number(half_width(values)),
        _number(fmean(rows) if rows else None),
    ]


def _gain(own: Sequence[Row], other: Sequence[Row]) -> list[str]:
    """Differences with the same seed: more is better. Of perplexities and RMSE they are of the logarithms."""
    before = {row["seed"]: row["found"]["value"] for row in other if "found" in row}
    pairs = [
        (row["found"]["value"], before[row["seed"]], row["found"]["name"])
        for row in own
        if row["seed"] in before
    ]
    if not pairs:
        return ["", ""]
    gains = [math.log(old / new) if name in LOWER_IS_BETTER else new - old for new, old, name in pairs]
    return [f"{fmean(gains):+.4f}", _number(half_width(gains))]


def half_width(values: Sequence[float]) -> float | None:
    """Of the 95 % interval of a mean, by Student's t; None for one value alone."""
    if len(values) < 2:
        return None
    return _T975[len(values) - 2] * stdev(values) / math.sqrt(len(values))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
