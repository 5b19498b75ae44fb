"""A config.json of timm's: a name, and bounded numbers of its head and its images."""

import json
from typing import Any

import pytest

from workers.engine.admit import hf_config
from workers.engine.admit.hf_fields import Config
from workers.engine.errors import Rejected

GOOD: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 7,
    "num_features": 512,
    "global_pool": "avg",
    "pretrained_cfg": {"tag": "a1_in1k", "input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "url": "no"},
}


def admitted(document: object) -> Config:
    return hf_config.admit(json.dumps(document).encode())


def rejection(document: object) -> Rejected:
    with pytest.raises(Rejected) as caught:
        admitted(document)
    return caught.value


def test_what_the_network_depends_on_is_kept() -> None:
    config = admitted(GOOD | {"model_args": {"img_size": [96, 64], "in_chans": 1}})
    assert (config.model_type, config.architecture) == ("timm", "resnet18")
    assert config.fields == {
        "num_classes": 7,
        "global_pool": "avg",
        "img_size": [96, 64],
        "in_chans": 1,
        "input_size": (3, 224, 224),
    }


def test_a_model_type_makes_it_one_of_transformers() -> None:
    assert rejection(GOOD | {"model_type": "timm"}).code == "unknown_model_type"


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:someone/evil",
        "local-dir:/etc",
        "../resnet18",
        "resnet18.a1_in1k",
        "",
        "R",
        "x" * 200,
        3,
        None,
        ["a"],
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: object) -> None:
    assert rejection(GOOD | {"architecture": name}).code == "unknown_architecture"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_classes": 1 << 30}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"global_pool": "evil"}, "global_pool"),
        ({"pretrained_cfg": {}}, "pretrained_cfg.input_size"),
        ({"pretrained_cfg": {"input_size": [3, 224]}}, "pretrained_cfg.input_size"),
        ({"pretrained_cfg": {"input_size": [3, 1 << 20, 224]}}, "input_size"),
        ({"pretrained_cfg": []}, "pretrained_cfg.input_size"),
        ({"pretrained_cfg": [1]}, "pretrained_cfg"),
        ({"model_args": {"depth": 20_000}}, "model_args.depth"),
        ({"model_args": {"pretrained": True}}, "model_args.pretrained"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "model_args.checkpoint_path"),
        ({"model_args": {"img_size": 1 << 20}}, "img_size"),
    ],
)
def test_other_fields_are_named(change: dict[str, Any], field: str) -> None:
    found = rejection(GOOD | change)
    assert (found.code, found.field) == ("config_field", field)
