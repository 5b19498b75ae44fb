"""Admission of timm's config.json: the name of an architecture, and what its head and its images are like."""

import re
from collections.abc import Mapping
from typing import Any

from workers.engine.admit.hf_fields import Choice, Config, Field, Side, Whole, refused
from workers.engine.errors import Rejected

MODEL_TYPE = "timm"
"""What such a configuration has for a model type; transformers has none of that name."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}", re.ASCII)
_POOLING = Choice(("avg", "max", "avgmax", "catavgmax", "token", "map", ""))
_CLASSES, _SIDE, _CHANNELS = Whole(0, 1 << 20), Whole(1, 4096), Whole(1, 64)
_HEAD: dict[str, Field] = {"num_classes": _CLASSES, "global_pool": _POOLING}
_ARGUMENTS = {**_HEAD, "in_chans": _CHANNELS, "img_size": Side(_SIDE)}


def is_timm(document: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's own."""
    return "architecture" in document and "model_type" not in document


def admit(document: Mapping[str, Any]) -> Config:
    """The configuration: `fields` holds `input_size` (channels, height, width), and of the head and of the
    arguments what was given.

    Raises `Rejected`: `unknown_architecture` where the name cannot be one, `config_field`.
    """
    architecture = document["architecture"]
    if type(architecture) is not str or not _NAME.fullmatch(architecture):
        raise Rejected(
            "unknown_architecture",
            "The architecture of config.json cannot be one of timm's.",
            hint="Give its name as timm.list_models() has it, without the tag of pretrained weights.",
            field="architecture",
        )
    arguments = _table(document, "model_args")
    for name in arguments.keys() - _ARGUMENTS.keys():
        raise refused(f"model_args.{name}", arguments[name], f"nothing but {', '.join(_ARGUMENTS)}")
    fields = {name: field.admit(name, document[name]) for name, field in _HEAD.items() if name in document}
    fields |= {name: _ARGUMENTS[name].admit(name, value) for name, value in arguments.items()}
    return Config(MODEL_TYPE, architecture, {**fields, "input_size": _input_size(document)})


def _input_size(document: Mapping[str, Any]) -> tuple[int, ...]:
    size = _table(document, "pretrained_cfg").get("input_size")
    if type(size) is not list or len(size) != 3:
        raise refused("pretrained_cfg.input_size", size, "channels, height and width")
    kinds = (_CHANNELS, _SIDE, _SIDE)
    return tuple(kind.admit("input_size", value) for kind, value in zip(kinds, size, strict=True))


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key) or {}
    if type(found) is not dict:
        raise refused(key, found, "an object")
    return found
