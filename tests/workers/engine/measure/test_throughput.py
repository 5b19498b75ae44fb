"""Throughput: what it promises whatever the machine is doing. No test looks at an absolute speed."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.workers.engine.measure.onnx_files import matmul
from workers.engine.measure.latency import Opened, Runner, open_onnx
from workers.engine.measure.throughput import Throughput, measure

BATCHES = [(torch.zeros(batch, 2),) for batch in (1, 8, 32)]


def opened(call: Callable[[int], object]) -> Opened:
    def runner(examples: Sequence[Tensor]) -> Runner:
        batch = len(examples[0])
        return Runner(lambda: call(batch), batch, 1)

    return runner


def test_calls_that_cost_the_same_give_more_examples_in_larger_batches() -> None:
    [found] = measure({"a": opened(lambda _: time.sleep(0.002))}, BATCHES, seconds=0).values()
    assert [speed.batch for speed in found] == [1, 8, 32]
    speeds = [speed.examples_per_second or 0.0 for speed in found]
    assert 0 < speeds[0] <= 500
    assert speeds == sorted(speeds)
    assert {(speed.threads, speed.runs) for speed in found} == {(1, 3)}


def test_networks_take_turns() -> None:
    calls: list[str] = []
    networks = {name: opened(lambda _, name=name: calls.append(name)) for name in "ab"}  # type: ignore[misc]
    measure(networks, BATCHES[:1], seconds=0)
    assert calls[:2] == ["a", "b"]
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(2, 8, 2))


def test_a_batch_that_takes_too_long_is_unmeasured_for_all_and_larger_ones_are_not_tried() -> None:
    tried: list[tuple[str, int]] = []

    def call(name: str, slow: int) -> Opened:
        def work(batch: int) -> None:
            tried.append((name, batch))
            time.sleep(0.5 if batch == slow else 0)

        return opened(work)

    found = measure({"a": call("a", 8), "b": call("b", 0)}, BATCHES, seconds=0, longest=0.4)
    for speeds in found.values():
        assert speeds[0].examples_per_second is not None
        assert speeds[1:] == [Throughput(8, 1, None, 0), Throughput(32, 1, None, 0)]
    assert tried.count(("a", 8)) == 1
    assert not {("b", 8), ("a", 32), ("b", 32)} & set(tried)


def test_a_batch_that_does_not_run_is_unmeasured() -> None:
    def work(batch: int) -> None:
        if batch > 1:
            raise MemoryError

    [found] = measure({"a": opened(work)}, BATCHES, seconds=0).values()
    assert [speed.examples_per_second is None for speed in found] == [False, True, True]


def test_one_open_file_serves_every_batch(tmp_path: Path) -> None:
    model = open_onnx(matmul(tmp_path / "model.onnx", np.ones((2, 3), np.float32)), 1)
    [found] = measure({"model": model}, BATCHES, seconds=0).values()
    assert all(speed.examples_per_second for speed in found)
