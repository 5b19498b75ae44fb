"""Packaging: the artifacts are opened again by stock tools in a clean process, then the report is written."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from app.contract.spec import Output
from app.contract.status import Stage
from workers.engine.graph.network import Network
from workers.engine.measure import onnx_network, reopen
from workers.stages import finetune, folders, int8
from workers.stages.context import Context, save
from workers.stages.measure import final, measured, noise
from workers.stages.report import write_report
from workers.stages.verdict import not_faster

_ROWS = 8
Tensors = Sequence[torch.Tensor]


def run(context: Context) -> None:
    """Copy what the user asked for, prove that it opens and agrees, and report."""
    plans = finetune.carried_out(context)
    for index, (plan, _) in enumerate(plans):
        name = f"candidate-{index}"
        if not _shipped(context, index):
            continue
        inputs = _inputs(context)
        expected = _outputs(final(context, name), inputs)
        for suffix in sorted(set(context.spec.outputs) - {Output.HUGGINGFACE}):
            _ship(context, f"{name}.{suffix}", suffix.value, inputs, expected)
        if Output.HUGGINGFACE in context.spec.outputs:
            prove = partial(_prove, context, "huggingface", inputs, expected)
            folders.ship(context, name, plan, prove)
        if context.spec.quantize is not None:
            _ship_int8(context, f"{int8.named(name)}.onnx", inputs)
        context.advance(Stage.PACKAGE, (index + 1) / len(plans))
    report = write_report(context)
    save(context.artifacts / "report.json", report)
    save(context.workspace / "result.json", report)


def _shipped(context: Context, index: int) -> bool:
    """Everything is, but what is slower than the original where time was asked for."""
    found = measured(context)
    slower = not_faster(found.original, found.candidates[index].measured)
    return context.spec.target.of != "latency" or not slower


def _ship(context: Context, file: str, form: reopen.Format, inputs: Tensors, outputs: Tensors) -> None:
    """Copy a file that the measurement left, where it did, and prove that it computes the outputs."""
    made, artifact = context.folder(Stage.MEASURE) / file, context.artifacts / file
    if not made.exists():
        return
    shutil.copyfile(made, artifact)
    _prove(context, form, inputs, outputs, artifact)


def _prove(context: Context, form: reopen.Format, inputs: Tensors, outputs: Tensors, artifact: Path) -> None:
    """Raises `EngineError` where an artifact does not open or computes something else."""
    folder = context.folder(Stage.PACKAGE)
    np.savez(folder / "inputs.npz", *(tensor.numpy() for tensor in inputs))
    np.savez(folder / "expected.npz", *(tensor.numpy() for tensor in outputs))
    reopen.agree(artifact, form, folder / "inputs.npz", folder / "expected.npz")


def _ship_int8(context: Context, file: str, inputs: Tensors) -> None:
    """An int8 file has to compute what it did when it was measured."""
    made = context.folder(Stage.MEASURE) / file
    if made.exists():
        _ship(context, file, "int8", inputs, onnx_network.load(made, torch.get_num_threads())(*inputs))


def _inputs(context: Context) -> Tensors:
    """A few rows, as many as the network takes."""
    examples = context.splits.test or noise(context)
    size = context.original.batch_size(min(_ROWS, len(examples)))
    inputs, _ = next(examples.batches(size, rows=np.resize(np.arange(len(examples)), size)))
    return inputs


def _outputs(network: Network, inputs: Tensors) -> Tensors:
    """What the network in memory makes of them."""
    with torch.inference_mode():
        output = network(*inputs)
    return [output] if isinstance(output, torch.Tensor) else list(output)
