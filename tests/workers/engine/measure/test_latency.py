"""Timing: what it promises whatever the machine is doing. No test looks at an absolute speed."""

import gc
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.workers.engine.measure.onnx_files import matmul
from workers.engine.errors import EngineError
from workers.engine.graph.network import Dimension, Input, trace
from workers.engine.measure.latency import Runner, interleave, onnx_runner, torch_runner


def test_the_slower_one_is_slower_and_quartiles_are_in_order() -> None:
    seconds = {"slow": 0.005, "fast": 0.001}
    runners = {name: Runner(partial(time.sleep, duration), 1, 1) for name, duration in seconds.items()}
    timed = interleave(runners, seconds=0)
    assert list(timed) == ["slow", "fast"]
    assert timed["slow"].p50_ms > timed["fast"].p50_ms >= 1
    for latency in timed.values():
        assert latency.p95_ms >= latency.p50_ms
        assert latency.iqr_ms >= 0
        assert latency.runs == 30


def test_runners_take_turns_and_nobody_is_always_first() -> None:
    calls: list[str] = []
    runners = {name: Runner(partial(calls.append, name), 1, 1) for name in "abc"}
    timed = interleave(runners, seconds=0, min_runs=40)
    rounds = ["".join(calls[-120:][i : i + 3]) for i in range(0, 120, 3)]
    assert set(rounds) == {"abc", "bca", "cab"}
    assert {latency.runs for latency in timed.values()} == {40}


def test_what_is_warm_is_timed_from_its_first_call() -> None:
    calls: list[int] = []
    timed = interleave({"a": Runner(lambda: calls.append(1), 1, 1)}, seconds=0, min_runs=3, warm=True)
    assert (timed["a"].runs, len(calls)) == (3, 3)


def test_fast_calls_run_more_often_but_not_without_end() -> None:
    runner = {"fast": Runner(lambda: None, 1, 1)}
    assert interleave(runner, seconds=60, max_runs=200)["fast"].runs == 200


def test_the_collector_is_paused_and_everything_is_restored() -> None:
    seen: set[tuple[bool, int]] = set()
    threads = torch.get_num_threads()
    wanted = threads + 1
    interleave(
        {"a": Runner(lambda: seen.add((gc.isenabled(), torch.get_num_threads())), 1, wanted)}, seconds=0
    )
    assert seen == {(False, wanted)}
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_a_runner_that_fails_is_a_typed_error_and_everything_is_restored() -> None:
    with pytest.raises(EngineError) as caught:
        interleave({"broken": Runner(lambda: 1 / 0, 1, 1)}, seconds=0)
    assert caught.value.code == "not_runnable"
    assert "broken" in caught.value.detail
    assert gc.isenabled()


def test_torch_runs_the_network_on_the_examples_without_gradients() -> None:
    network = trace(nn.Linear(3, 2).eval(), [Input("x", torch.float32, (Dimension("batch"), 3))])
    examples = (torch.ones(4, 3),)
    runner = torch_runner(network, examples, threads=1)
    output = runner.call()
    assert isinstance(output, torch.Tensor)
    assert output.is_inference()
    assert torch.allclose(output, network(*examples))
    assert (runner.batch, runner.threads) == (4, 1)


def test_onnx_runs_the_file_on_the_examples(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    runner = onnx_runner(matmul(tmp_path / "model.onnx", weight), (torch.ones(4, 3),), threads=1)
    outputs = runner.call()
    assert isinstance(outputs, list)
    assert np.array_equal(outputs[0].numpy(), np.tile(weight.sum(0), (4, 1)))
    timed = interleave({"onnxruntime": runner}, seconds=0)["onnxruntime"]
    assert (timed.batch, timed.threads, timed.runs) == (4, 1, 30)
    assert timed.p50_ms > 0


def test_a_file_that_onnx_runtime_cannot_load_is_a_typed_error_without_a_path(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(EngineError) as caught:
        onnx_runner(path, (torch.ones(1, 3),), threads=1)
    assert caught.value.code == "not_runnable"
    assert str(tmp_path) not in caught.value.detail
