"""Which selection of ranks leaves most of a network, everything else alike: ours against simpler ones.

    python -m benchmarks.selections [FOLDER …] [--resume]

FOLDER has the cases, as `benchmarks.cases` takes them; without it the case is the repository's example. Every
selection is given the same decompositions, two-sided weighting, calibration rows and budgets of MACs, and
nothing is trained. What was measured so far is in var/benchmarks; `--resume` goes on from there.
"""

import argparse
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.plan import Plan
from app.contract.spec import ExplicitRanks, LayerRule, Method, Task, Weighting
from app.contract.status import Stage
from app.planning.rules import rules_of
from benchmarks import rivals
from benchmarks.cases import body, found_in
from benchmarks.folds import Row, folds, pooled
from benchmarks.greedy import curves
from benchmarks.jobs import WORK, ignore, job_order, kept
from benchmarks.paired import Floats, p_of_share, p_values, resampled_means, share_won
from benchmarks.rivals import Choice, Menus, Rival
from benchmarks.row_values import closeness, row_values
from benchmarks.tables import markdown, publish
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.measure import cost
from workers.stages import judge
from workers.stages.calibration import (
    Judge,
    calibration_rows,
    candidate_judge,
    gather,
    sensitivity_judge,
    weigh,
)
from workers.stages.carry_out import carry_out
from workers.stages.context import Context
from workers.stages.decisions import decide, undecided
from workers.stages.decompose import best_of
from workers.stages.plan import Planner, measure_sensitivities

_FOLDER = WORK / "selections"
_KEEPS = (0.7, 0.5, 0.35, 0.25)
_BY = Weighting.TWO_SIDED
_OURS = "budget"
_VALUES = _METRIC, _CLOSENESS = "metric", "closeness"  # what rows are worth: both, the more the better
_RESAMPLES = 10_000
_CLAIMED = 0.8  # of the cells
_SURE = 0.05  # a p-value

Plans = dict[str, Any]  # a plan, or None where the budget is out of reach, by keep; all as JSON
Rows = dict[str, dict[str, Row | None]]  # by selection, then by keep
Cell = tuple[str, str]  # case and keep


def main() -> None:
    """Measure case after case, and put what there is into the page after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selections")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    if not asked.resume:
        shutil.rmtree(_FOLDER, ignore_errors=True)
    measured: dict[str, Rows] = {}
    seconds: dict[str, float] = dict.fromkeys(_SELECTIONS, 0.0)
    for case in found_in(asked.folders):
        found = [_found(fold, seconds) for fold in folds(case, _FOLDER / "folds" / case.name)]
        measured[case.name] = {
            name: {keep: pooled([rows[name][keep] for rows in found], _VALUES) for keep in first}
            for name, first in found[0].items()
        }
        content = _tables(measured, seconds)
        publish("selections", content)
        print(content, file=sys.stderr, flush=True)


def _found(case: Path, seconds: dict[str, float]) -> Rows:
    """What all selections make of a case; the time that they took is added to `seconds`."""
    rows: Rows = {"original": {"1": kept(_cell(case, "original", "1"), partial(_original, case))}}
    for name in _SELECTIONS:
        chosen = kept(_work(case) / f"{name}.json", partial(_choose, case, name))
        seconds[name] += chosen["seconds"]
        rows[name] = _measured(case, name, chosen["plans"])
    return rows


def _context(case: Path) -> Context:
    """A job of its own for every selection: what one computed serves no other. Only the moments do."""
    workspace = _work(case) / "job"
    inputs = {"model": case / "model.pt2", "train": case / "train.npz", "test": case / "test.npz"}
    asked = {
        "calibration": {"weighting": _BY.value},
        "finetune": {"epochs": 0},
        "target": {"min_agreement": 0.0},
    }
    context = Context(job_order({**body(case), **asked}, inputs, workspace), workspace, ignore)
    if Stage.PLAN not in context.order.done:
        context.start(Stage.PLAN)
        gather(context, context.layers(context.original))
        context.finish(Stage.PLAN)
    return context


def _choose(case: Path, name: str) -> dict[str, Any]:
    """One selection's plans, and the seconds that it took to choose all of them."""
    context = _context(case)
    _ = context.original, context.splits
    start = time.perf_counter()
    plans = _SELECTIONS[name](context)
    return {"seconds": time.perf_counter() - start, "plans": plans}


def _by_budget(context: Context) -> Plans:
    """As a job chooses: what weights the layers' depth is tried too."""
    measure_sensitivities(context, _BY, sensitivity_judge(context))
    planner, judged = Planner(context, _BY), candidate_judge(context)
    return {f"{keep:g}": _reachable(context, planner, judged, keep) for keep in _KEEPS}


def _reachable(context: Context, planner: Planner, judged: Judge, keep: float) -> Any:
    try:
        best, _ = best_of(context, [planner(keep)], judged)
        return best.plan.model_dump(mode="json")
    except EngineError as error:
        if error.code != "budget_unreachable":
            raise
        return None


def _by_rival(make: Callable[[Context, Menus], Rival], context: Context) -> Plans:
    layers = context.layers(context.original)
    weigh(context, layers, _BY)
    menus = Menus(undecided(layers, context.spec), rules_of(context.spec, layers))
    rival, total = make(context, menus), cost.count(context.original).macs
    macs = {layer.name: layer.macs for layer in menus.layers}
    elsewhere = _plan(context, layers, dict.fromkeys(macs), 1.0).macs - sum(macs.values())

    def price(choice: Choice) -> int:
        return elsewhere + sum(form.macs if form else macs[name] for name, form in choice.items())

    choices = {keep: rivals.meet(rival, price, math.floor(keep * total)) for keep in _KEEPS}
    return {
        f"{keep:g}": choice and _plan(context, layers, choice, keep).model_dump(mode="json")
        for keep, choice in choices.items()
    }


def _plan(context: Context, layers: Sequence[Layer], choice: Choice, keep: float) -> Plan:
    """A choice as a job's own rules would have it."""
    rules = [
        LayerRule(match=name, method=Method(form.method), rank=list(form.rank))
        if form
        else LayerRule(match=name, method=Method.KEEP)
        for name, form in choice.items()
    ]
    ranks = ExplicitRanks(selection="explicit")
    spec = context.spec.model_copy(update={"ranks": ranks, "layers": [*rules, *context.spec.layers]})
    return decide(context.original, layers, spec, _BY, keep)


def _by_greedy(context: Context, menus: Menus) -> Rival:
    return rivals.greedy(menus, curves(context, menus, _BY))


_SELECTIONS: dict[str, Callable[[Context], Plans]] = {
    _OURS: _by_budget,
    "uniform": partial(_by_rival, lambda _, menus: rivals.uniform(menus)),
    "energy": partial(_by_rival, lambda _, menus: rivals.energy(menus)),
    "VBMF": partial(_by_rival, lambda _, menus: rivals.vbmf(menus)),
    "greedy": partial(_by_rival, _by_greedy),
}


def _work(case: Path) -> Path:
    """Where a case, or a fold of it, has what was measured so far."""
    return case if case.is_relative_to(_FOLDER) else _FOLDER / case.name


def _cell(case: Path, name: str, keep: str) -> Path:
    return _work(case) / f"{name}-{keep}.json"


def _measured(case: Path, name: str, plans: Plans) -> dict[str, Row | None]:
    return {
        keep: kept(_cell(case, name, keep), partial(_carried_out, case, plan)) if plan else None
        for keep, plan in plans.items()
    }


def _carried_out(case: Path, stored: Any) -> Row:
    """What a plan makes of the network, measured on the test rows."""
    context, plan = _context(case), Plan.model_validate(stored)
    copy = context.original.copy()
    layers = context.layers(copy)
    weigh(context, layers, _BY)
    network = carry_out(context, plan, copy, layers, calibration_rows(context)).network
    return _row(context, network)


def _original(case: Path) -> Row:
    context = _context(case)
    return _row(context, context.original)


def _row(context: Context, network: Network) -> Row:
    test = context.splits.test
    assert test is not None
    original, found = (judge.outputs(each, test) for each in (context.original, network))
    whole, macs = (cost.count(each).macs for each in (context.original, network))
    values = row_values(context, found, original, test.inputs, test.targets())
    near = closeness(context, found, original, test.inputs)
    return {
        "task": context.task.value,
        "macs": macs / whole,
        _METRIC: values.tolist(),
        _CLOSENESS: near.tolist(),
    }


def _tables(measured: Mapping[str, Rows], seconds: Mapping[str, float]) -> str:
    """The metrics of every cell, the differences between selections, and who won how often."""
    metrics = [row for case in measured for row in _metrics(case, measured[case])]
    parts = [markdown(["case", "keep", *_SELECTIONS], metrics)]
    won: dict[str, list[str]] = {name: [] for name in _RIVALS}
    for value in _VALUES:
        differences, means = _bootstrapped(measured, value)
        cells = [(case, f"{keep:g}") for case in measured for keep in _KEEPS]
        compared = [
            [*cell, *(_difference(cell, name, differences, means) for name in _RIVALS)] for cell in cells
        ]
        parts.append(markdown([f"{value} of", "keep", *_RIVALS], compared))
        won = {name: [*won[name], *_won(differences[name], means[name])] for name in _RIVALS}
    header = [f"{value}: {what}" for value in _VALUES for what in _COUNTED]
    counts = [[name, *won[name], f"{seconds[name]:.0f}"] for name in _RIVALS]
    ours = [_OURS, *[""] * len(header), f"{seconds[_OURS]:.0f}"]
    return "\n\n".join([*parts, markdown(["", *header, "seconds"], [ours, *counts])])


_RIVALS = [name for name in _SELECTIONS if name != _OURS]
_COUNTED = ("better", "surely", "surely worse", f"p of ≥ {_CLAIMED:.0%}")


def _bootstrapped(measured: Mapping[str, Rows], value: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """By rival and cell: how much better ours is on each row, and the means of that over rows drawn anew, the
    same for every cell and rival of a case."""
    random = np.random.default_rng(0)
    differences: dict[str, dict[Cell, Floats]] = {name: {} for name in _RIVALS}
    means: dict[str, dict[Cell, Floats]] = {name: {} for name in _RIVALS}
    for case, rows in measured.items():
        found = {(name, keep): values for name in _RIVALS for keep, values in _paired(rows, name, value)}
        if not found:
            continue
        drawn = resampled_means(np.stack(list(found.values()), 1), _RESAMPLES, random)
        for column, ((name, keep), values) in enumerate(found.items()):
            differences[name][case, keep] = values
            means[name][case, keep] = drawn[:, column]
    return differences, means


def _paired(rows: Rows, name: str, value: str) -> list[tuple[str, NDArray[np.float64]]]:
    """Ours less a rival's on each row, where both meet the budget."""
    both = {keep: (ours, rows[name][keep]) for keep, ours in rows[_OURS].items()}
    return [
        (keep, np.array(ours[value]) - np.array(other[value]))
        for keep, (ours, other) in both.items()
        if ours and other
    ]


def _metrics(case: str, rows: Rows) -> list[list[str]]:
    [original] = rows["original"].values()
    assert original is not None
    lines = [[case, "1", f"{_shown(original)}", *[""] * len(_RIVALS)]]
    for keep in rows[_OURS]:
        found = [rows[name][keep] for name in _SELECTIONS]
        best = max(np.mean(row[_METRIC]) for row in found if row) if any(found) else None
        lines.append([case, keep, *(_entry(row, best) for row in found)])
    return lines


def _entry(row: Row | None, best: float | None) -> str:
    if row is None:
        return "–"
    shown = f"**{_shown(row)}**" if np.mean(row[_METRIC]) == best else _shown(row)
    return f"{shown} ({row['macs']:.3f})"


def _shown(row: Row) -> str:
    mean = float(np.mean(row[_METRIC]))
    return f"ppl {math.exp(-mean):.3f}" if row["task"] == Task.LANGUAGE_MODELING else f"{mean:.4f}"


def _difference(cell: Cell, name: str, differences: Any, means: Any) -> str:
    if cell not in differences[name]:
        return "–"
    [p] = p_values(means[name][cell][:, None])
    return f"{differences[name][cell].mean():+.4f} (p {p:.4f})"


def _won(differences: Mapping[Cell, Floats], means: Mapping[Cell, Floats]) -> list[str]:
    """In how many cells ours is better, surely better and surely worse, and how sure the claim is."""
    if not means:
        return ["–"] * len(_COUNTED)
    share = share_won(np.array([values.mean() for values in differences.values()]))
    drawn = np.stack(list(means.values()), 1)
    surely = [int((p_values(each) < _SURE).sum()) for each in (drawn, -drawn)]
    p = p_of_share(drawn, _CLAIMED, np.random.default_rng(0))
    return [f"{float(share):.0%} of {len(means)}", *map(str, surely), f"{p:.4f}"]


if __name__ == "__main__":
    main()
