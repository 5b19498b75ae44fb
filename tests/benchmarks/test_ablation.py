"""Lines that differ in what they say only, and a table that tells how sure it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.report import Metric
from app.contract.spec import JobSpec
from app.contract.status import Stage
from benchmarks import ablation
from benchmarks.ablation import LINES, half_width, spec_of, stored, table_of
from benchmarks.jobs import ignore
from tests.benchmarks.small import write_case
from workers.messages import Order
from workers.stages import pipeline
from workers.stages.context import Context
from workers.stages.finetune import trained

SETTINGS = {"seed": 0, "keep": 0.5, "epochs": 2}
SHORT = ("all default methods", "blocks refined", "distilled")


def row(line: str, seed: int, value: float, *, name: str = "top1", **more: Any) -> dict[str, Any]:
    found = {"name": name, "value": value, "interval": [value - 0.01, value + 0.03]}
    original = {"name": name, "value": 0.9, "interval": [0.88, 0.92]}
    return {
        "case": "one", "line": line, **SETTINGS, "seed": seed, "macs": 0.5, "found": found,
        "original": original, "control": None, **more,
    }  # fmt: skip


def density(t: NDArray[np.float64], freedom: int) -> NDArray[np.float64]:
    """Student's, up to a factor."""
    shape: NDArray[np.float64] = (1 + t * t / freedom) ** (-(freedom + 1) / 2)
    return shape


@pytest.mark.parametrize("count", range(2, 11))
def test_means_are_as_sure_as_students_t_says(count: int) -> None:
    values = list(np.random.default_rng(0).normal(size=count))
    width = half_width(values)
    assert width is not None
    quantile = width / (np.std(values, ddof=1) / count**0.5)
    # t = tan(u) brings the tails near
    u = np.linspace(-np.pi / 2, np.pi / 2, 2_000_001)[1:-1]
    mass = density(np.tan(u), count - 1) / np.cos(u) ** 2
    assert mass[np.tan(u) < quantile].sum() / mass.sum() == pytest.approx(0.975, abs=1e-4)
    assert half_width(values[:1]) is None


def test_every_line_is_a_job_and_differs_from_the_one_before_in_what_it_says() -> None:
    bodies = {name: spec_of(line, {"task": "classification"}, SETTINGS) for name, line in LINES.items()}
    for name, line in LINES.items():
        spec = JobSpec.model_validate({"model": "mdl_" + "0" * 32, **bodies[name]})
        assert spec.finetune.epochs == (2 if line.trains else 0)
        if line.over:
            before = bodies[line.over]
            changed = {key for key in {*before, *bodies[name]} if before.get(key) != bodies[name].get(key)}
            assert len(changed) == 1, (name, changed)
        if line.goes_on:
            factors = bodies[SHORT[0]]
            assert {**bodies[name], "finetune": 0} == {**factors, "finetune": 0}


def test_what_a_case_says_is_kept() -> None:
    case = {"layers": [{"match": "head", "method": "keep"}], "finetune": {"batch_size": 16}}
    body = spec_of(LINES["patience of one epoch"], case, SETTINGS)
    assert body["layers"] == case["layers"]
    assert body["finetune"] == {"batch_size": 16, "refine": True, "patience": 1, "epochs": 2}


def test_gains_are_of_the_same_seed_and_both_intervals_are_told() -> None:
    control = {"name": "top1", "value": 0.92, "interval": [0.9, 0.94]}
    rows = [row(SHORT[1], seed, 0.5 + 0.1 * seed) for seed in range(3)]
    rows += [row(SHORT[2], seed, 0.6 + 0.1 * seed, control=control) for seed in range(3)]
    table = {line[1]: line for line in table_of(rows)}
    width = f"{4.303 * 0.1 / 3**0.5:.4f}"
    assert table["original"][2:5] == ["1.000", "top1", "0.9000"]
    assert table[SHORT[1]][2:] == ["0.500", "top1", "0.6000", width, "0.0200", "", ""]
    assert table[SHORT[2]][2:] == ["0.500", "top1", "0.7000", width, "0.0200", "+0.1000", "0.0000"]
    assert table["control"][2:] == ["1.000", "top1", "0.9200", "0.0000", "0.0200", "", ""]
    assert {len(line) for line in table.values()} == {9}


def test_a_lower_perplexity_is_a_gain_and_an_unmet_budget_none() -> None:
    rows = [row(SHORT[1], 0, 20.0, name="perplexity"), row(SHORT[2], 0, 10.0, name="perplexity")]
    rows.append({"case": "one", "line": "labels alone", **SETTINGS})
    table = {line[1]: line for line in table_of(rows)}
    assert table[SHORT[2]][7:] == ["+0.6931", "–"]
    assert table["labels alone"][2:4] == ["unreachable", ""]


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ablation, "_FOLDER", tmp_path / "state")
    monkeypatch.setattr(ablation, "LINES", {name: LINES[name] for name in SHORT[::2]})
    return write_case(tmp_path / "case", 200)


class Jobs:
    """Runs jobs up to what is trained, and makes their results up; the second is cut off."""

    def __init__(self) -> None:
        self.done: list[list[Stage]] = []
        self.splits: list[dict[str, int]] = []

    def run(self, order: Order, workspace: Path) -> Any:
        """In place of `run_job`."""
        self.done.append(order.done)
        if len(self.done) == 2:
            raise KeyboardInterrupt
        order = order.model_copy(update={"done": [*order.done, Stage.MEASURE, Stage.PACKAGE]})
        context = Context(order, workspace, ignore)
        pipeline._compress(context)
        self.splits.append(context.splits.sizes)
        metric = Metric(name="top1", value=0.5, n=40, ci95=(0.4, 0.6))
        control = SimpleNamespace(metric=metric) if trained(context, "control") else None
        made = SimpleNamespace(metric=metric, macs=1)
        return SimpleNamespace(candidates=[made], original=made, control=control)


def test_an_interrupted_run_goes_on_and_lines_have_the_same_rows_and_factors(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs()
    monkeypatch.setattr(ablation, "run_job", jobs.run)
    with pytest.raises(KeyboardInterrupt):
        list(ablation._lines(case, SETTINGS))
    rows = list(ablation._lines(case, SETTINGS))
    factors = [Stage.INSPECT, Stage.PLAN, Stage.DECOMPOSE]
    assert jobs.done == [[], factors, factors]
    assert jobs.splits == [{"fit": 160, "calibration": 20, "selection": 20, "test": 100}] * 2
    assert [each["line"] for each in rows] == ["all default methods", "distilled"]
    assert [bool(each["control"]) for each in rows] == [False, True]
    assert list(ablation._lines(case, SETTINGS)) == rows
    assert len(jobs.done) == 3


@pytest.mark.slow
def test_whole_jobs_fill_the_table(case: Path) -> None:
    table = {line[1]: line for line in table_of(list(ablation._lines(case, SETTINGS)))}
    assert list(table) == ["original", "all default methods", "distilled", "control"]
    assert table["original"][4] == "1.0000"  # it labelled the rows
    assert 0.0 < float(table["distilled"][2]) <= 0.5
    assert all(0.0 < float(line[6]) < 0.1 for name, line in table.items() if name != "original")


def test_a_line_that_was_cut_off_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert stored(path) == []
    path.write_text('{"case": "one"}\n{"case": "tw')
    assert stored(path) == [{"case": "one"}]
