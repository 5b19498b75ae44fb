"""Results as a pipeline would write them."""

from typing import Any

MODEL = "mdl_" + "0" * 32
SUMMARY: dict[str, Any] = {"inputs": [], "outputs": [], "parameters": 3, "macs": 2, "layers": []}
_MEASURED: dict[str, Any] = {"parameters": 3, "macs": 2, "bytes": {"pt2": 1}, "latency": {}}
REPORT: dict[str, Any] = {
    "model": MODEL,
    "spec": {"model": MODEL},
    "environment": {"torch": "2", "onnxruntime": "1", "cpu": "x", "threads": 1, "seed": 0, "device": "cpu"},
    "original": _MEASURED,
    "candidates": [],
    "seconds": {},
}
