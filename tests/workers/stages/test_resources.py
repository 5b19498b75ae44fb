"""What the report says of resources, and the int8 forms, through whole jobs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tests.workers.engine.measure.test_energy import zone
from tests.workers.engine.networks import Convolutional, image_network, seeded, vector_network
from tests.workers.stages.jobs import Arrays, Finished, run_job
from workers.engine.errors import EngineError
from workers.engine.formats import onnx, pt2
from workers.engine.graph.network import Input, Network, trace
from workers.engine.measure import cost, energy, onnx_network, traffic
from workers.stages import resources

UNTRAINED: dict[str, Any] = {"outputs": ["onnx"], "finetune": {"epochs": 0}}


def classifier() -> Network:
    seeded()
    return vector_network(nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 4)), 64)


def rows(network: Network, count: int) -> Arrays:
    x = np.random.default_rng(count).standard_normal((count, *network.sizes()[0][1:])).astype(np.float32)
    return {"x": x, "target": network(torch.from_numpy(x)).argmax(-1).numpy()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A job that asks for int8 forms, on a machine without an energy counter."""
    network = classifier()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "COUNTERS", tmp_path_factory.mktemp("empty"))
        return run_job(
            tmp_path_factory.mktemp("int8") / "job",
            network,
            rows(network, 100),
            rows(network, 60),
            task="classification",
            quantize="dynamic-int8",
            **{**UNTRAINED, "outputs": ["pt2", "onnx"]},
        )


def test_bytes_moved_and_the_intensity_are_those_of_the_artifact(finished: Finished) -> None:
    network = pt2.read(finished.workspace / "artifacts" / "candidate-0.pt2")
    counted, candidate = traffic.count(network), finished.candidate
    assert candidate.bytes_moved is not None
    moved = (candidate.bytes_moved.weights, candidate.bytes_moved.activations)
    assert moved == (counted.weights, counted.activations)
    assert candidate.arithmetic_intensity == pytest.approx(cost.count(network).macs / counted.total)
    original = finished.report.original
    assert original.bytes_moved is not None
    assert original.bytes_moved.weights == 4 * (64 * 96 + 96 + 96 * 4 + 4)


def test_throughput_is_measured_of_one_eight_and_thirty_two(finished: Finished) -> None:
    for network in (finished.report.original, finished.candidate):
        assert [speed.batch for speed in network.throughput] == [1, 8, 32]
        assert all(speed.runs >= 3 and speed.examples_per_second for speed in network.throughput)


def test_without_a_counter_energy_is_null_with_a_reason(finished: Finished) -> None:
    for network in (finished.report.original, finished.candidate):
        assert network.energy_per_inference_joules is None
        assert network.energy_reason == "This machine shows no energy counter."


def test_int8_forms_are_reported_apart_and_shipped(finished: Finished) -> None:
    report, candidate = finished.report, finished.candidate
    for network in (report.original, candidate):
        assert network.quantized is not None
        assert network.quantized.bytes < network.bytes["onnx"]
        assert network.quantized.metric is not None
        assert network.quantized.latency is not None
        assert network.quantized.latency.runs == network.latency["onnxruntime"].runs
        assert network.quantized.fidelity.relative_error > 0
    files = sorted(path.name for path in (finished.workspace / "artifacts").iterdir())
    assert files == ["candidate-0-int8.onnx", "candidate-0.onnx", "candidate-0.pt2", "report.json"]


def test_the_int8_artifact_is_what_was_measured(finished: Finished) -> None:
    file = finished.workspace / "artifacts" / "candidate-0-int8.onnx"
    test, quantized = np.load(finished.workspace / "inputs" / "test"), finished.candidate.quantized
    assert quantized is not None
    assert quantized.metric is not None
    assert quantized.bytes == file.stat().st_size
    scores = ort.InferenceSession(file).run(None, {"input": test["x"]})[0]
    assert np.mean(scores.argmax(-1) == test["target"]) == pytest.approx(quantized.metric.value, abs=0.02)


def test_an_int8_form_is_told_of_only_where_it_is_slower_or_worse(finished: Finished) -> None:
    candidate = finished.candidate
    assert candidate.quantized is not None
    assert candidate.quantized.latency is not None
    slower = candidate.quantized.latency.p50_ms >= candidate.latency["onnxruntime"].p50_ms
    assert (("int8_slower", None) in finished.notices) == slower


def test_what_cannot_be_quantized_is_null_with_a_notice_and_the_job_goes_on(tmp_path: Path) -> None:
    seeded()
    network = vector_network(nn.ConvTranspose1d(32, 48, 3), 32, 9)
    finished = run_job(tmp_path / "job", network, quantize="dynamic-int8", **UNTRAINED)
    assert finished.candidate.quantized is None or finished.report.original.quantized is None
    assert ("not_quantizable", None) in finished.notices
    shipped = (tmp_path / "job" / "artifacts" / "candidate-0-int8.onnx").exists()
    assert shipped == (finished.candidate.quantized is not None)


def test_an_int8_form_whose_outputs_are_no_numbers_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = onnx_network.load
    monkeypatch.setattr(
        onnx_network, "load", lambda *given: lambda *x: [torch.nan * y for y in load(*given)(*x)]
    )
    finished = run_job(tmp_path / "job", classifier(), quantize="dynamic-int8", **UNTRAINED)
    assert finished.candidate.quantized is None
    assert ("not_quantizable", None) in finished.notices
    assert not (tmp_path / "job" / "artifacts" / "candidate-0-int8.onnx").exists()


def test_a_fixed_batch_is_the_only_one(tmp_path: Path) -> None:
    seeded()
    network = trace(nn.Linear(64, 64).eval(), [Input("x", torch.float32, (4, 64))])
    finished = run_job(tmp_path / "job", network, target={"keep": 0.8}, **UNTRAINED)
    assert [speed.batch for speed in finished.candidate.throughput] == [4]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A job that asks for nothing, on a machine with a counter and little memory."""
    folder = tmp_path_factory.mktemp("plain")
    counter = zone(folder / "powercap" / "intel-rapl:0", "package-0")
    read = energy._Zone.read

    def turn(zone: energy._Zone) -> int:
        counter.write_text(str(int(counter.read_text()) + 5000))
        return read(zone)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "COUNTERS", folder / "powercap")
        patch.setattr(energy._Zone, "read", turn)
        patch.setattr(resources, "_MOST_BYTES", 10 * 4 * (96 + 96 + 4))
        return run_job(folder / "job", classifier(), **UNTRAINED)


def test_a_counter_makes_joules(plain: Finished) -> None:
    for network in (plain.report.original, plain.candidate):
        assert 0 < (network.energy_per_inference_joules or 0.0) <= 0.005
        assert network.energy_reason is None


def test_batches_whose_activations_are_too_large_are_null(plain: Finished) -> None:
    speeds = [speed.examples_per_second for speed in plain.candidate.throughput]
    assert [speed is None for speed in speeds] == [False, False, True]


def test_a_job_that_does_not_ask_has_no_int8_form(plain: Finished) -> None:
    assert plain.report.original.quantized is plain.candidate.quantized is None
    assert not list(plain.workspace.rglob("*int8*"))


def test_without_an_onnx_form_what_is_counted_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("onnx_unsupported", "There is no conversion.")

    monkeypatch.setattr(onnx, "write", refuse)
    finished = run_job(
        tmp_path / "job", image_network(Convolutional(width=32)), quantize="dynamic-int8", **UNTRAINED
    )
    candidate = finished.candidate
    assert candidate.bytes_moved is not None
    assert (candidate.throughput, candidate.quantized) == ([], None)
    assert "ONNX" in (candidate.energy_reason or "")
    assert {("onnx_unsupported", None), ("not_quantizable", None)} <= finished.notices


def test_costs_are_counted_for_the_lengths_that_the_upload_was_exported_with(tmp_path: Path) -> None:
    seeded()
    module = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64)).eval()
    varies = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = torch.export.export(module, (torch.zeros(3, 40, 64),), dynamic_shapes=(varies,))
    torch.export.save(program, tmp_path / "model.pt2")
    report = run_job(tmp_path / "job", tmp_path / "model.pt2", target={"keep": 0.5}, **UNTRAINED).report
    original, [candidate] = report.original, report.candidates
    assert original.macs == 40 * 2 * 64 * 96
    assert candidate.macs == sum(layer.macs[1] for layer in candidate.layers) <= original.macs / 2
