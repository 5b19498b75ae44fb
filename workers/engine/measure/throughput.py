"""How many examples a second: in batches, rivals in turns, and never for long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from workers.engine.errors import EngineError
from workers.engine.measure.latency import Latency, Opened, Runner, interleave, timed

_LEAST_RUNS = 3


@dataclass(frozen=True)
class Throughput:
    """Examples a second: the batch over the median time of `runs` calls; None where it was not measured."""

    batch: int
    threads: int
    examples_per_second: float | None
    runs: int


def measure(
    networks: Mapping[str, Opened],
    batches: Sequence[Sequence[Tensor]],
    *,
    seconds: float = 1.0,
    longest: float = 2.0,
) -> dict[str, list[Throughput]]:
    """The throughput of every network for every batch; `batches` hold the inputs in order, the smallest
    batch first.

    Networks take turns, for `seconds` per batch and for three rounds at least. A batch of which one call of
    one network takes longer than `longest` seconds, or fails, is left unmeasured for all of them, and so is
    every larger one.
    """
    found: dict[str, list[Throughput]] = {name: [] for name in networks}
    affordable = True
    for examples in batches:
        runners = {name: opened(examples) for name, opened in networks.items()}
        affordable = affordable and _affordable(runners, longest)
        latencies: Mapping[str, Latency] = {}
        if affordable:
            latencies = interleave(runners, seconds=seconds, min_runs=_LEAST_RUNS, warm=True)
        for name, runner in runners.items():
            found[name].append(_throughput(runner, latencies.get(name)))
    return found


def _affordable(runners: Mapping[str, Runner], longest: float) -> bool:
    """Call each once, which also warms it up; false at the first that takes too long or fails."""
    try:
        return all(timed(name, runner) <= 1000 * longest for name, runner in runners.items())
    except EngineError:  # most likely it is the memory that does not suffice
        return False


def _throughput(runner: Runner, latency: Latency | None) -> Throughput:
    if latency is None:
        return Throughput(runner.batch, runner.threads, None, 0)
    return Throughput(runner.batch, runner.threads, 1000 * runner.batch / latency.p50_ms, latency.runs)
