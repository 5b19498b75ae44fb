"""A job's findings, as a worker would store them."""

import copy
import math
from typing import Any

from app.queue.lifecycle import Made
from tests.app.client.service import REPORT

MADE = [
    Made("keep-0.5.onnx", "onnx", 0, 1_180_000, "cd" * 32),
    Made("keep-0.5.pt2", "pt2", 0, 1_200_000, "ab" * 32),
    Made("report.json", "json", None, 23_000, "ef" * 32),
]


def report(*keeps: float) -> dict[str, Any]:
    """A report with a candidate for each fraction, a control and fine-tuning curves."""
    document = copy.deepcopy(REPORT)
    template = document["candidates"][0]
    metric = document["original"]["metric"]
    document["control"] = {"metric": {**metric, "value": 0.915}}
    document["candidates"] = [_candidate(template, keep) for keep in keeps]
    return document


def with_resources(document: dict[str, Any]) -> dict[str, Any]:
    """The same report with resources and int8 forms, of its first candidate."""
    document = copy.deepcopy(document)
    candidate = document["candidates"][0]
    document["original"] |= {
        "bytes_moved": {"weights": 2_640_000, "activations": 2_000_000},
        "arithmetic_intensity": 7.85,
        "throughput": [_speed(1, 1000.0), _speed(8, 1100.0)],
        "energy_per_inference_joules": 0.025,
        "quantized": _int8(700_000, 0.8, 0.92, 0.999),
    }
    candidate |= {
        "bytes_moved": {"weights": 1_200_000, "activations": 2_100_000},
        "arithmetic_intensity": 5.5,
        "throughput": [_speed(1, 1666.7), _speed(8, None)],
        "energy_reason": "The energy counters of this machine stand still.",
        "quantized": _int8(350_000, 0.72, 0.8, 0.98),
    }
    return document


def _speed(batch: int, examples: float | None) -> dict[str, Any]:
    return {"batch": batch, "threads": 1, "examples_per_second": examples, "runs": 9 if examples else 0}


def _int8(size: int, milliseconds: float, top1: float, cosine: float) -> dict[str, Any]:
    latency = REPORT["original"]["latency"]["onnxruntime"]
    return {
        "bytes": size,
        "latency": {**latency, "p50_ms": milliseconds},
        "metric": {**REPORT["original"]["metric"], "value": top1},
        "fidelity": {"relative_error": 0.1, "cosine": cosine, "top1_agreement": 0.97, "n": 2000},
    }


def _candidate(template: dict[str, Any], keep: float) -> dict[str, Any]:
    curve = [{"step": step, "loss": 0.2 + math.exp(-step / 20)} for step in range(0, 100, 5)]
    curve[-1]["metric"] = 0.9
    dense = {
        **template["layers"][0], "name": "stem.0", "method": "keep", "rank": None, "weight_error": 0.0,
        "reason": "too few channels to gain", "output_error": None, "latency_ms": None,
    }  # fmt: skip
    return {
        **template,
        "keep": keep,
        "parameters": int(600_000 * keep),
        "macs": int(36_000_000 * keep),
        "finetune": curve,
        "layers": [dense, *template["layers"]],
    }
