"""`python -m benchmarks.formats`: every upload through a whole job; the table in docs/formats.md.

    python -m benchmarks.formats [FOLDER …] [--only WORD …] [--resume]

FOLDER is a case, as `benchmarks.cases` takes them, or has some in it; a `model.onnx` beside the `model.pt2`
is an upload, too. `--only` takes uploads whose form or name has one of the words; `--resume` takes what an
earlier run left in var/benchmarks.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.contract.report import Candidate, Report
from benchmarks.cases import found_in
from benchmarks.formats.uploads import FIXED, Upload, uploads
from benchmarks.jobs import WORK, job_order, kept, run_job, timed_in_passing
from benchmarks.tables import markdown, publish
from workers.engine.errors import EngineError
from workers.stages import inspect

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
KEEP = 0.6  # of the MACs
_FOLDER = WORK / "formats"
_HEADER = ["format", "model", "MB", "parameters", "MACs", "methods", "how near", "result"]
_PASSES = "passes"


def main() -> None:
    """Put them through one after the other."""
    asked = _options()
    torch.set_num_threads(1)
    if not asked.resume:
        shutil.rmtree(_FOLDER, ignore_errors=True)
    rows: list[list[str]] = []
    for upload in uploads(found_in(asked.folders)):
        if _is_asked_for(upload, asked.only) and not _is_known(upload, rows):
            path = _FOLDER / f"{upload.form} {upload.name}.json".replace("/", "-")
            rows.append(kept(path, partial(put_through, upload)))
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    passed = sum(row[-1] == _PASSES for row in rows)
    if not asked.only:
        publish("passed", f"{passed} of {len(rows)} pass.\n\n{markdown(_HEADER, rows)}", PAGE)


def _is_asked_for(upload: Upload, words: Sequence[str] | None) -> bool:
    return any(word in f"{upload.form} {upload.name}" for word in words or [""])


def _is_known(upload: Upload, rows: Sequence[Sequence[str]]) -> bool:
    """Lengths need not be fixed in a file that passes without."""
    return upload.form == FIXED and any(row[1] == upload.name and row[-1] == _PASSES for row in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def put_through(upload: Upload) -> list[str]:
    """Intake, compression, and artifacts that stock torch and ONNX Runtime open in a process of their own:
    the last stage of a job sees to that. A row of the table, with the reason where it goes no further."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            files = upload.write(Path(scratch))
        except Exception as error:  # exporters are others' code
            return [upload.form, upload.name, "", "", "", "", "", f"not exported: {type(error).__name__}"]
        model = files["model"]
        start = [upload.form, upload.name, f"{model.stat().st_size / 1e6:.1f}"]
        try:
            inspect.model(model, model.suffix.removeprefix("."))
            with timed_in_passing():
                workspace = Path(scratch) / "job"
                report = run_job(job_order(_spec(upload), files, workspace), workspace)
        except EngineError as error:
            return [*start, "", "", "", "", f"{error.code}: {error.detail}".replace("|", "/")]
        return [*start, *_found(report)]


def _spec(upload: Upload) -> dict[str, Any]:
    return {"target": {"keep": KEEP, "min_agreement": 0.0}, "finetune": {"epochs": 0}, **upload.spec}


def _found(report: Report) -> list[str]:
    [candidate] = report.candidates
    methods = sorted({layer.method for layer in candidate.layers} - {"keep"})
    return [
        f"{report.original.parameters:,} → {candidate.parameters / report.original.parameters:.0%}",
        f"{candidate.macs / report.original.macs:.0%}",
        ", ".join(methods),
        _nearness(report, candidate),
        _PASSES,
    ]


def _nearness(report: Report, candidate: Candidate) -> str:
    """By labels, or else the cosine with the original's outputs."""
    ours, theirs = candidate.metric, report.original.metric
    if ours is not None and theirs is not None:
        return f"{ours.name} {theirs.value:.4g} → {ours.value:.4g}"
    return f"cosine {candidate.fidelity.cosine:.3f}"


if __name__ == "__main__":
    main()
