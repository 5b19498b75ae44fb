"""Bodies of `POST /v1/jobs` that the API's description shows."""

from fastapi.openapi.models import Example

_MODEL = "mdl_0123456789abcdef0123456789abcdef"
_TRAIN = "dst_0123456789abcdef0123456789abcdef"
_TEST = "dst_fedcba9876543210fedcba9876543210"

BODIES: dict[str, Example] = {
    "least": {"summary": "Half the MACs, without data", "value": {"model": _MODEL}},
    "classifier": {
        "summary": "A classifier, fine-tuned and measured on your data",
        "value": {
            "model": _MODEL,
            "data": {"train": _TRAIN, "test": _TEST},
            "task": "classification",
            "target": {"of": "macs", "keep": 0.5},
            "finetune": {"epochs": 3, "distill": True},
            "outputs": ["pt2", "onnx"],
        },
    },
    "pareto": {
        "summary": "Several sizes from one decomposition",
        "value": {
            "model": _MODEL,
            "data": {"train": _TRAIN},
            "target": {"of": "macs", "keep": [0.7, 0.5, 0.3]},
        },
    },
    "by hand": {
        "summary": "Ranks by energy, some layers by hand",
        "value": {
            "model": _MODEL,
            "ranks": {"selection": "energy", "energy": 0.9},
            "layers": [
                {"match": "layers.3.*", "method": "tucker", "rank": [64, 64]},
                {"match": "fc", "method": "keep"},
            ],
        },
    },
}
