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
