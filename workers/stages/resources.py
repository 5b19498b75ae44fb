"""What the networks use: parameters, MACs, bytes moved; examples a second and energy in ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from app.contract.base import Contract
from app.contract.report import BytesMoved, Throughput
from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.measure import cost, energy, latency, throughput, traffic
from workers.stages.context import Context

THREADS = 1  # numbers of one thread compare across machines and jobs
_BATCHES = (1, 8, 32)
_SECONDS = 1.0  # per batch, and of energy per network
_MOST_BYTES = 8 << 30  # of all activations together, which never lie in memory at once


class Resources(Contract):
    """The part of `Measured` that this module finds."""

    parameters: int
    macs: int
    bytes_moved: BytesMoved
    arithmetic_intensity: float | None
    throughput: list[Throughput] = []
    energy_per_inference_joules: float | None = None
    energy_reason: str | None = None


def measure(
    context: Context, networks: Mapping[str, Network], exported: Mapping[str, Path]
) -> dict[str, Resources]:
    """Counted on the graphs; and measured on the files, in turns, where every network has one."""
    counted = {name: _counted(network) for name, network in networks.items()}
    if exported.keys() != networks.keys():
        reason = "Energy is measured in ONNX Runtime, and a network has no ONNX form."
        return {name: found.model_copy(update={"energy_reason": reason}) for name, found in counted.items()}
    batch_in = context.original.batch_in
    opened = {name: latency.open_onnx(path, THREADS, batch_in) for name, path in exported.items()}
    speeds, energies = _throughput(context, opened), _energy(context, opened)
    return {
        name: found.model_copy(update={"throughput": speeds[name], **energies[name]})
        for name, found in counted.items()
    }


def _counted(network: Network) -> Resources:
    costs, moved = cost.count(network), traffic.count(network)
    return Resources(
        parameters=costs.parameters,
        macs=costs.macs,
        bytes_moved=BytesMoved(weights=moved.weights, activations=moved.activations),
        arithmetic_intensity=costs.macs / moved.total if moved.total else None,
    )


def _throughput(context: Context, opened: Mapping[str, latency.Opened]) -> dict[str, list[Throughput]]:
    """Of the batches that the network takes; one whose activations are too large is null."""
    network = context.original
    sizes = sorted({network.batch_size(wanted, network.batch_axis) for wanted in _BATCHES})
    fit = [size for size in sizes if size * context.row_bytes <= _MOST_BYTES]
    found = throughput.measure(opened, [network.examples(size) for size in fit], seconds=_SECONDS)
    unmeasured = [Throughput(batch=size, threads=THREADS) for size in sizes[len(fit) :]]
    return {
        name: [*(Throughput(**asdict(speed)) for speed in speeds), *unmeasured]
        for name, speeds in found.items()
    }


def _energy(context: Context, opened: Mapping[str, latency.Opened]) -> dict[str, dict[str, float | str]]:
    """Joules for every network, or the reason why there are none."""
    examples = context.original.examples()
    runners = {name: bind(examples) for name, bind in opened.items()}
    try:
        joules = energy.per_call(runners, energy.COUNTERS, seconds=_SECONDS)
    except EngineError as error:
        return {name: {"energy_reason": error.detail} for name in opened}
    return {name: {"energy_per_inference_joules": spent} for name, spent in joules.items()}
