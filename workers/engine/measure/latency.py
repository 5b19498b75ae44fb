"""How long a call takes. Rivals are timed in turns: what disturbs the machine disturbs all alike."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from workers.engine.errors import EngineError
from workers.engine.graph.network import Network
from workers.engine.measure.onnx_session import open_session

_WARM_UP_CALLS = 3
_WARM_UP_SECONDS = 0.1


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call: median, 95th percentile, interquartile range over `runs` calls."""

    batch: int
    threads: int
    p50_ms: float
    p95_ms: float
    iqr_ms: float
    runs: int


@dataclass(frozen=True)
class Runner:
    """One inference on a prepared batch, with `threads` threads."""

    call: Callable[[], object]
    batch: int
    threads: int


BatchIn = Callable[[Sequence[Tensor]], int]
"""How large the batch of a network's inputs is."""
Opened = Callable[[Sequence[Tensor]], Runner]
"""A network that is ready to run: from its inputs in order to their inference."""


def _first_axis(examples: Sequence[Tensor]) -> int:
    return len(examples[0])


def onnx_runner(
    model: Path, examples: Sequence[Tensor], threads: int, batch_in: BatchIn = _first_axis
) -> Runner:
    """Inference of an `.onnx` file in ONNX Runtime; `examples` are its inputs in order.

    Raises `EngineError` (`not_runnable`) where ONNX Runtime cannot load the file.
    """
    return open_onnx(model, threads, batch_in)(examples)


def open_onnx(model: Path, threads: int, batch_in: BatchIn = _first_axis) -> Opened:
    """Open an `.onnx` file in ONNX Runtime once, for batches of several sizes, which `batch_in` tells.

    Raises `EngineError` (`not_runnable`) where ONNX Runtime cannot load the file.
    """
    with _runnable("onnxruntime"):
        session = open_session(model, threads)
    names = [spec.name for spec in session.get_inputs()]

    def runner(examples: Sequence[Tensor]) -> Runner:
        feed = {
            name: ort.OrtValue.ortvalue_from_numpy(example.numpy())
            for name, example in zip(names, examples, strict=True)
        }
        return Runner(lambda: session.run_with_ort_values(None, feed), batch_in(examples), threads)

    return runner


def torch_runner(network: Network, examples: Sequence[Tensor], threads: int) -> Runner:
    """Inference of the graph in torch; `examples` are its inputs in order."""

    def call() -> object:
        with torch.inference_mode():
            return network(*examples)

    return Runner(call, network.batch_in(examples), threads)


def interleave(
    runners: Mapping[str, Runner],
    *,
    seconds: float = 5.0,
    min_runs: int = 30,
    max_runs: int = 1000,
    warm: bool = False,
    twice: bool = False,
) -> dict[str, Latency]:
    """Time every runner once a round, in an order that starts somewhere else each round; with `twice` it is
    called twice in a row, and the second call counts: its weights are then as near as in a network that
    nothing else runs beside.

    Each is warmed up first, unless all are `warm`. There are at least `min_runs` rounds, then as many as fit
    into `seconds` in all, at most `max_runs`. The garbage collector is paused; torch's number of threads is
    restored afterwards.
    Raises `EngineError` (`not_runnable`) where a runner fails.
    """
    names = list(runners)
    milliseconds: dict[str, list[float]] = {name: [] for name in names}
    starts = np.random.default_rng(0)
    with undisturbed():
        for name in () if warm else names:
            repeat(name, runners[name], _WARM_UP_SECONDS, least=_WARM_UP_CALLS)
        end = time.perf_counter() + seconds
        for done in range(max_runs):
            if done >= min_runs and time.perf_counter() > end:
                break
            start = int(starts.integers(len(names)))
            for name in names[start:] + names[:start]:
                if twice:
                    timed(name, runners[name])
                milliseconds[name].append(timed(name, runners[name]))
    return {name: _summary(runners[name], milliseconds[name]) for name in names}


def timed(name: str, runner: Runner) -> float:
    """Milliseconds of one call; raises `EngineError` (`not_runnable`) where it fails."""
    if torch.get_num_threads() != runner.threads:
        torch.set_num_threads(runner.threads)
    with _runnable(name):
        start = time.perf_counter_ns()
        runner.call()
        return (time.perf_counter_ns() - start) / 1e6


def repeat(name: str, runner: Runner, seconds: float, least: int = 1) -> int:
    """Call it for so long and so often at least; how often it was called. Raises like `timed`."""
    end = time.perf_counter() + seconds
    calls = 0
    while calls < least or time.perf_counter() < end:
        timed(name, runner)
        calls += 1
    return calls


def _summary(runner: Runner, milliseconds: list[float]) -> Latency:
    p25, p50, p75, p95 = np.percentile(milliseconds, [25, 50, 75, 95]).tolist()
    return Latency(runner.batch, runner.threads, p50, p95, p75 - p25, len(milliseconds))


@contextmanager
def undisturbed() -> Iterator[None]:
    """While this lasts, the garbage collector is paused; afterwards torch has its number of threads back."""
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()


@contextmanager
def _runnable(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EngineError(
            "not_runnable",
            f"The model could not be run for measuring ({name}).",
            hint="Check that the model accepts a batch of one and the shapes it declares.",
        ) from error
