"""Measuring the original, the control and every candidate: the one stage that touches the test rows."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.contract.base import Contract
from app.contract.report import Control, Fidelity, Latency, Measured, Metric, Quantized
from app.contract.status import Stage
from workers.engine import clean_process
from workers.engine.data import Examples
from workers.engine.errors import EngineError
from workers.engine.formats import onnx, pt2
from workers.engine.graph.network import Network
from workers.engine.measure import fidelity, latency, memory, onnx_network
from workers.engine.padding import real_positions
from workers.stages import finetune, int8, judge, resources
from workers.stages.context import Context, load, save
from workers.stages.decompose import decomposed
from workers.stages.resources import THREADS

ORIGINAL = "original"
_FOUND = "measured.json"
_TIMING_SECONDS = 3.0  # per runtime, all networks together; thirty runs each at least
_NOISE_ROWS = 64  # examples of noise where the user gave no data


class CandidateMeasured(Contract):
    """What this stage finds of one candidate."""

    measured: Measured
    metric_before_finetune: Metric | None
    fidelity: Fidelity


class Measurements(Contract):
    """What this stage hands on."""

    original: Measured
    control: Control | None
    candidates: list[CandidateMeasured]


def run(context: Context) -> None:
    """Export, time and evaluate; the files stay in the folder for packaging."""
    folder = context.folder(Stage.MEASURE)
    plans = decomposed(context)
    names = [f"candidate-{index}" for index in range(len(plans))]
    networks = {ORIGINAL: context.original, **{name: final(context, name) for name in names}}
    for name, network in networks.items():
        _export(context, network, folder / name)
    exported = {name: path for name in networks if (path := folder / f"{name}.onnx").exists()}
    quantized = int8.write(context, networks, exported)
    context.advance(Stage.MEASURE, 0.3)
    timed = _latencies(networks, exported, quantized)
    context.advance(Stage.MEASURE, 0.5)
    used = resources.measure(context, networks, exported)
    context.advance(Stage.MEASURE, 0.6)
    judged = _Judge(context)
    looks = {name: judged.look(network) for name, network in networks.items()}
    each = {
        name: Measured(
            bytes=_sizes(folder / name),
            latency=timed[name],
            peak_memory_bytes=_peak_memory(network, exported.get(name)),
            metric=looks[name][0],
            quantized=judged.look_at_int8(name, quantized.get(name), timed[int8.named(name)]),
            **dict(used[name]),
        )
        for name, network in networks.items()
    }
    int8.remark(context, {name: each[name] for name in names})
    candidates = [
        CandidateMeasured(
            measured=each[name],
            metric_before_finetune=judged.before(name),
            fidelity=looks[name][1],
        )
        for name in names
    ]
    found = Measurements(original=each[ORIGINAL], control=judged.control(), candidates=candidates)
    save(folder / _FOUND, found)


def measured(context: Context) -> Measurements:
    """What `run` found."""
    return load(context.folder(Stage.MEASURE) / _FOUND, Measurements)


def final(context: Context, name: str) -> Network:
    """A candidate as the user will get it: trained where there was training."""
    return context.once((final, name), lambda: context.written(_final(context, name)))


def _final(context: Context, name: str) -> Path:
    return finetune.trained(context, name) or _decomposed(context, name)


def _decomposed(context: Context, name: str) -> Path:
    return context.folder(Stage.DECOMPOSE) / f"{name}.pt2"


class _Judge:
    """Evaluates networks on the test rows, or on noise where there are none."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._examples = context.splits.test or noise(context)
        self._original = judge.outputs(context.original, self._examples)
        self._positions = real_positions(context.original.inputs, self._examples.inputs)

    def look(self, network: Network) -> tuple[Metric | None, Fidelity]:
        """The task's metric, and how close the outputs are to the original's."""
        return self._look(self._original if network is self._context.original else self._outputs(network))

    def look_at_int8(self, name: str, path: Path | None, timed: Mapping[str, Latency]) -> Quantized | None:
        """The same of an int8 form, in ONNX Runtime; one whose outputs cannot be judged is removed."""
        if path is None:
            return None
        try:
            form = onnx_network.load(path, torch.get_num_threads())
            metric, close = self._look(judge.outputs(self._context.original, self._examples, form=form))
        except EngineError as error:
            path.unlink()
            self._context.notice("not_quantizable", f"{name}: its int8 form is no use. {error.detail}")
            return None
        size = path.stat().st_size
        return Quantized(bytes=size, latency=timed.get("onnxruntime"), metric=metric, fidelity=close)

    def _look(self, outputs: Tensor) -> tuple[Metric | None, Fidelity]:
        close = fidelity.compare(self._original, outputs, self._positions)
        return self._metric(outputs), Fidelity(**asdict(close))

    def before(self, name: str) -> Metric | None:
        """The metric of a candidate before it was trained; None where it never was."""
        if finetune.trained(self._context, name) is None:
            return None
        return self._metric(self._outputs(self._context.written(_decomposed(self._context, name))))

    def control(self) -> Control | None:
        """The original, trained like the candidates."""
        path = finetune.trained(self._context, finetune.CONTROL)
        found = self._metric(self._outputs(self._context.written(path))) if path else None
        if found is None:
            return None
        rate = finetune.pace(self._context, finetune.CONTROL).learning_rate
        return Control(metric=found, learning_rate=rate)

    def _metric(self, outputs: Tensor) -> Metric | None:
        return judge.metric(self._context, outputs, self._examples)

    def _outputs(self, network: Network) -> Tensor:
        return judge.outputs(network, self._examples)


def noise(context: Context) -> Examples:
    """Inputs in place of data that the user did not give: noise, zeros for integers, ones for masks."""
    torch.manual_seed(context.spec.seed)
    network = context.original
    made = network.examples(_NOISE_ROWS)
    pairs, count = zip(network.inputs, made, strict=True), network.rows_in(made)
    return Examples(tuple(spec.as_rows(values, count) for spec, values in pairs), None, network.inputs)


def _export(context: Context, network: Network, stem: Path) -> None:
    """Both formats, whatever the user asked for: latencies need them. Not every model has an ONNX form."""
    if network is context.original:
        pt2.write(network, stem.with_suffix(".pt2"))
    else:
        shutil.copyfile(_final(context, stem.name), stem.with_suffix(".pt2"))
    try:
        onnx.write(network, stem.with_suffix(".onnx"))
    except EngineError as error:
        stem.with_suffix(".onnx").unlink(missing_ok=True)
        if error.detail not in {notice.detail for notice in context.noticed}:
            context.notice(error.code, error.detail)


def _latencies(
    networks: Mapping[str, Network], exported: Mapping[str, Path], quantized: Mapping[str, Path]
) -> dict[str, dict[str, Latency]]:
    """Milliseconds per network and runtime, all of a runtime in turns; int8 forms have names of their own."""
    found: dict[str, dict[str, Latency]] = {name: {} for name in (*networks, *map(int8.named, networks))}
    original = networks[ORIGINAL]
    examples = original.examples()
    in_torch = {name: latency.torch_runner(net, examples, THREADS) for name, net in networks.items()}
    runtimes = {"torch": in_torch}
    if exported.keys() == networks.keys():
        files = {**exported, **{int8.named(name): path for name, path in quantized.items()}}
        runtimes["onnxruntime"] = {
            name: latency.onnx_runner(path, examples, THREADS, original.batch_in)
            for name, path in files.items()
        }
    for runtime, runners in runtimes.items():
        for name, timed in latency.interleave(runners, seconds=_TIMING_SECONDS).items():
            found[name][runtime] = Latency(**asdict(timed))
    return found


def _sizes(stem: Path) -> dict[str, int]:
    files = {suffix: stem.with_suffix(f".{suffix}") for suffix in ("pt2", "onnx")}
    return {suffix: path.stat().st_size for suffix, path in files.items() if path.exists()}


def _peak_memory(network: Network, exported: Path | None) -> int | None:
    """Measured in ONNX Runtime; null, never a guess, where that cannot be."""
    if exported is None:
        return None
    inputs = exported.with_name("one.npz")
    np.savez(inputs, *(example.numpy() for example in network.examples()))
    try:
        return memory.peak_memory(exported, inputs, THREADS)
    except clean_process.ProcessFailed:
        return None
