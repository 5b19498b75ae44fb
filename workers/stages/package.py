"""Packaging: the artifacts are opened again by stock tools in a clean process, then the report is written."""

import shutil
from pathlib import Path

import numpy as np
import torch

from app.contract.status import Stage
from workers.engine.graph.network import Network
from workers.engine.measure import reopen
from workers.stages.context import Context, save
from workers.stages.decompose import decomposed
from workers.stages.measure import final, measured, noise
from workers.stages.report import write_report
from workers.stages.verdict import not_faster

_ROWS = 8


def run(context: Context) -> None:
    """Copy what the user asked for, prove that it opens and agrees, and report."""
    plans = decomposed(context)
    for index in range(len(plans)):
        name = f"candidate-{index}"
        if not _shipped(context, index):
            continue
        inputs, expected = _expectation(context, final(context, name))
        for suffix in sorted(set(context.spec.outputs)):
            made = context.folder(Stage.MEASURE) / f"{name}.{suffix}"
            if made.exists():
                artifact = context.artifacts / made.name
                shutil.copyfile(made, artifact)
                reopen.agree(artifact, suffix.value, inputs, expected)
        context.advance(Stage.PACKAGE, (index + 1) / len(plans))
    report = write_report(context)
    save(context.artifacts / "report.json", report)
    save(context.workspace / "result.json", report)


def _shipped(context: Context, index: int) -> bool:
    """Everything is, but what is slower than the original where time was asked for."""
    found = measured(context)
    slower = not_faster(found.original, found.candidates[index].measured)
    return context.spec.target.of != "latency" or not slower


def _expectation(context: Context, network: Network) -> tuple[Path, Path]:
    """Files with a few inputs, and what the network in memory makes of them."""
    examples = context.splits.test or noise(context)
    rows = np.resize(np.arange(len(examples)), network.batch_size(min(_ROWS, len(examples))))
    inputs, _ = next(examples.batches(len(rows), rows=rows))
    with torch.inference_mode():
        output = network(*inputs)
    outputs = [output] if isinstance(output, torch.Tensor) else list(output)
    folder = context.folder(Stage.PACKAGE)
    np.savez(folder / "inputs.npz", *(tensor.numpy() for tensor in inputs))
    np.savez(folder / "expected.npz", *(tensor.numpy() for tensor in outputs))
    return folder / "inputs.npz", folder / "expected.npz"
