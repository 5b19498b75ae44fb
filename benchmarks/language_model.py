"""A language model at 0.8 of its linear layers' parameters, untrained: our default against simpler ways.

    make bench-language-model

Each row of the table is what the stages of a job make of the model; perplexity is taken on windows that
served for nothing else. The working files and what was measured so far are in var/benchmarks; `--resume` goes
on from there.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.contract.plan import Plan
from app.contract.status import Stage
from benchmarks.jobs import WORK, ignore, job_order, kept
from benchmarks.smollm2 import write_job
from benchmarks.tables import markdown, publish
from workers.engine.graph.network import Network
from workers.engine.layers.base import Layer
from workers.engine.measure import cost
from workers.stages import judge, plan
from workers.stages.calibration import candidate_judge, weigh
from workers.stages.carry_out import carry_out
from workers.stages.context import Context

_FOLDER = WORK / "language-model"
_KEEP = 0.8  # of the linear layers' parameters
_HEAD = {"match": "*lm_head", "method": "keep"}  # tied to the embedding
_NAMES = {"none": "plain SVD", "inputs": "input-whitened SVD", "two_sided": "two-sided SVD"}
_BASELINE = f"{_NAMES['inputs']}, uniform ranks (SVD-LLM)"
_HEADER = ["", "linear parameters", "perplexity", "95 %", "log-perplexity", "of SVD-LLM's rise", "held out"]

Row = dict[str, Any]


def main() -> None:
    """Measure row after row, and put what there is into the page after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_model")
    parser.add_argument("--resume", action="store_true")
    if not parser.parse_args().resume:
        shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    files = {role: _FOLDER / name for role, name in _FILES.items()}
    if not all(path.exists() for path in files.values()):
        files = write_job(_FOLDER)
    rows: dict[str, Row] = {}
    for job, weighting, uniform in _JOBS:
        for row in _measured(job, weighting, uniform, files):
            rows[row["name"]] = row
            publish("language-model", _table(rows))
            print(_table(rows), file=sys.stderr, flush=True)


_FILES = {"model": "model.pt2", "train": "train.npz", "test": "test.npz"}
_JOBS = [("uniform", "auto", True), ("two-sided", "two_sided", False), ("inputs", "inputs", False)]


def _measured(job: str, weighting: str, uniform: bool, files: Mapping[str, Path]) -> Iterator[Row]:
    """The rows of one job, each kept in its workspace."""
    workspace = _FOLDER / job
    calibration = {"weighting": weighting, "memory_mb": 4096}
    body = {"task": "language-modeling", "finetune": {"epochs": 0}, "calibration": calibration}
    context = Context(job_order(body, files, workspace), workspace, ignore)
    body |= _uniform(context) if uniform else _budget(context)
    context.order = job_order(body, files, workspace)
    if Stage.PLAN not in context.order.done:
        context.start(Stage.PLAN)
        plan.run(context)
        context.finish(Stage.PLAN)
    if uniform:
        yield kept(workspace / "original.json", lambda: _row(context, "original", context.original, 1.0, 0.0))
    [alternatives] = plan.planned(context)
    for made in alternatives.plans:
        yield kept(
            workspace / f"{made.weighting.value}.json", lambda made=made: _carried_out(context, made, uniform)
        )


def _linear(context: Context) -> list[Layer]:
    return [layer for layer in context.layers(context.original) if layer.kind == "linear"]


def _uniform(context: Context) -> dict[str, Any]:
    """Every linear layer at the largest rank within its own share."""
    shapes = {layer.name: layer.matrix.shape for layer in _linear(context)}
    rules = [
        {"match": name, "method": "svd", "rank": math.floor(_KEEP * m * n / (m + n))}
        for name, (m, n) in shapes.items()
    ]
    return {"ranks": {"selection": "explicit"}, "layers": rules}


def _budget(context: Context) -> dict[str, Any]:
    """What is left of the whole network where the linear layers keep their share."""
    total = cost.parameters(context.original)
    linear = sum(layer.parameters for layer in _linear(context))
    keep = 1.0 - (1.0 - _KEEP) * linear / total
    return {"target": {"of": "parameters", "keep": keep}, "layers": [_HEAD]}


def _carried_out(context: Context, planned: Plan, uniform: bool) -> Row:
    copy = context.original.copy()
    layers = context.layers(copy)
    weigh(context, layers, planned.weighting)
    network = carry_out(context, planned, copy, layers, None).network
    linear = {layer.name for layer in _linear(context)}
    costs = [layer.parameters for layer in planned.layers if layer.name in linear]
    kept = sum(after for _, after in costs) / sum(before for before, _ in costs)
    ranks = "uniform ranks" if uniform else "ranks from our budget"
    name = f"{_NAMES[planned.weighting.value]}, {ranks}"
    name += " (SVD-LLM)" if f"{name} (SVD-LLM)" == _BASELINE else ""
    return _row(context, name, network, kept, candidate_judge(context).divergence(network))


def _row(context: Context, name: str, network: Network, kept: float, divergence: float) -> Row:
    test = context.splits.test
    assert test is not None
    metric = judge.metric(context, judge.outputs(network, test), test)
    assert metric is not None
    return {
        "name": name,
        "kept": kept,
        "perplexity": metric.value,
        "ci95": metric.ci95,
        "divergence": divergence,
    }


def _table(rows: Mapping[str, Row]) -> str:
    original, baseline = rows["original"], rows.get(_BASELINE)
    rise = _rise(baseline, original) if baseline else None
    return markdown(_HEADER, [_cells(row, original, rise) for row in rows.values()])


def _cells(row: Row, original: Row, baseline: float | None) -> list[str]:
    low, high = row["ci95"]
    rise = _rise(row, original)
    return [
        row["name"],
        f"{row['kept']:.4f}",
        f"{row['perplexity']:.2f}",
        f"{low:.2f} – {high:.2f}",
        f"+{rise:.3f}",
        f"{rise / baseline:.2f}" if baseline else "",
        f"{row['divergence']:.4f}",
    ]


def _rise(row: Row, original: Row) -> float:
    return math.log(row["perplexity"] / original["perplexity"])


if __name__ == "__main__":
    main()
