"""One fraction for all layers, by cross-validation over the calibration rows."""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

from app.contract.report import LOWER_IS_BETTER, FoldMetrics
from app.contract.spec import CrossValidationRanks, Weighting
from app.contract.status import Stage
from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.measure import fidelity
from workers.engine.padding import real_positions
from workers.stages import judge
from workers.stages.calibration import calibration_rows, candidates, fold, weigh
from workers.stages.carry_out import carry_out
from workers.stages.context import Context, load, save
from workers.stages.decisions import decide

SHARE = 0.5
"""Of the plan stage: what comes after is told as the rest."""
_FOUND = "cross-validation.json"
_ERROR = "relative_error"


def choose(context: Context, ranks: CrossValidationRanks) -> float:
    """The least fraction on the grid whose mean metric over the folds is within one standard error of the
    best one's (Breiman et al. 1984, the rule of one standard error).

    Each fold is measured on a network that was calibrated on the others: by the metric of the task where
    there are targets, else by the error of the outputs. Where several weightings may be tried later, the
    richest stands for them. What was found is kept for the report.

    Raises:
        EngineError: `too_few_rows`, `too_few_labels`, naming `ranks.folds`.
    """
    rows = _rows(context, ranks.folds)
    grid = sorted(set(ranks.grid))
    values: dict[float, list[float]] = {fraction: [] for fraction in grid}
    name = _ERROR
    for done, (fraction, metric, value) in enumerate(_measured(context, rows, grid, ranks.folds), 1):
        name = metric
        values[fraction].append(value)
        context.advance(Stage.PLAN, SHARE * done / (len(grid) * ranks.folds))
    best = _within_one_error(values, name)
    found = [
        FoldMetrics(fraction=fraction, metric=name, folds=folds, chosen=fraction == best)
        for fraction, folds in values.items()
    ]
    save(context.folder(Stage.PLAN) / _FOUND, found)
    return best


def found(context: Context) -> list[FoldMetrics]:
    """What `choose` measured; nothing where it was not asked for."""
    path = context.folder(Stage.PLAN) / _FOUND
    return load(path, list[FoldMetrics]) if path.exists() else []


def _rows(context: Context, folds: int) -> Examples:
    rows = calibration_rows(context)
    count = 0 if rows is None else len(rows)
    if rows is None or count < folds:
        raise EngineError(
            "too_few_rows",
            f"{count} calibration rows cannot be parted into {folds} folds.",
            hint="Ask for fewer folds, or add train rows: a tenth of them calibrates, or four fifths where "
            "nothing is fine-tuned.",
            field="ranks.folds",
        )
    return rows


def _measured(
    context: Context, rows: Examples, grid: Sequence[float], folds: int
) -> Iterator[tuple[float, str, float]]:
    """(fraction, metric, value) for every fold and fraction."""
    by = candidates(context)[-1]
    for part in range(folds):
        held = fold(rows, part, folds)
        seen = fold(rows, part, folds, others=True)
        measure = _Measure(context, held)
        for fraction in grid:
            yield fraction, measure.name, measure(_network(context, seen, part, fraction, by))


def _network(context: Context, seen: Examples, part: int, fraction: float, by: Weighting) -> Network:
    copy = context.original.copy()
    layers = context.layers(copy)
    weigh(context, layers, by, without=part)
    plan = decide(context.original, layers, context.spec, by, fraction, fraction)
    return carry_out(context, plan, copy, layers, seen, part).network


class _Measure:
    """The metric of a network on the rows of one fold."""

    def __init__(self, context: Context, held: Examples) -> None:
        self._context = context
        self._held = held
        self._original = judge.outputs(context.original, held)
        self._by_metric = held.target is not None and context.task.value != "none"
        if self._by_metric and not judge.judgeable(context, held):
            raise EngineError(
                "too_few_labels",
                f"A fold of {len(held)} rows holds too few labels that count.",
                hint="Ask for fewer folds, or add rows.",
                field="ranks.folds",
            )
        metric = judge.metric(context, self._original, held) if self._by_metric else None
        self.name = metric.name if metric else _ERROR

    def __call__(self, network: Network) -> float:
        outputs = judge.outputs(network, self._held)
        metric = judge.metric(self._context, outputs, self._held) if self._by_metric else None
        if metric is not None:
            return metric.value
        positions = real_positions(self._context.original.inputs, self._held.inputs)
        return fidelity.compare(self._original, outputs, positions).relative_error


def _within_one_error(values: dict[float, list[float]], name: str) -> float:
    """The least fraction that is as good as the best, up to the standard error of the best one's mean."""
    sign = 1.0 if name in {*LOWER_IS_BETTER, _ERROR} else -1.0
    losses = {
        fraction: [math.inf if math.isnan(value) else sign * value for value in folds]
        for fraction, folds in values.items()
    }
    best = min(losses.values(), key=fmean)
    if not math.isfinite(fmean(best)):
        return max(values)
    bound = fmean(best) + stdev(best) / math.sqrt(len(best))
    return min(fraction for fraction, folds in losses.items() if fmean(folds) <= bound)
