"""Admission of a config.json: a model type and an architecture that are known, and bounded fields."""

from collections.abc import Mapping
from typing import Any

from workers.engine.admit import timm_config
from workers.engine.admit.document import load
from workers.engine.admit.hf_fields import ALIASES, FIELDS, Config, fields_of, names, refused, shown
from workers.engine.errors import Rejected

MAX_CONFIG_BYTES = 4 << 20
_MAX_LABELS = 1 << 20

_TEXT = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
_DECODER = ("Model", "ForCausalLM", "ForTokenClassification")
_IMAGE = ("Model", "ForImageClassification")
_ARCHITECTURES = {
    "bert": ("Bert", _TEXT),
    "distilbert": ("DistilBert", _TEXT),
    "roberta": ("Roberta", _TEXT),
    "mpnet": ("MPNet", _TEXT),
    "gpt2": ("GPT2", ("Model", "LMHeadModel", "ForTokenClassification")),
    "llama": ("Llama", _DECODER),
    "mistral": ("Mistral", _DECODER),
    "qwen2": ("Qwen2", _DECODER),
    "t5": ("T5", ("ForConditionalGeneration", "EncoderModel")),
    "vit": ("ViT", _IMAGE),
    "deit": ("DeiT", (*_IMAGE, "ForImageClassificationWithTeacher")),
    "swin": ("Swin", _IMAGE),
    "resnet": ("ResNet", _IMAGE),
    "whisper": ("Whisper", ("Model", "ForConditionalGeneration", "ForAudioClassification")),
}
ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    model_type: tuple(prefix + head for head in heads)
    for model_type, (prefix, heads) in _ARCHITECTURES.items()
}
"""The classes of transformers that are read, by model type; the first where a file names none."""

_REFUSED = {
    "auto_map": ("remote_code", "names code of its own, which is never run"),
    "quantization_config": ("quantised_folder", "says that the weights are quantised"),
    "pruned_heads": ("config_field", "says that heads were cut out, which is not read"),
    "per_layer_config": ("config_field", "gives layers fields of their own, which is not read"),
}


def admit(data: bytes) -> Config:
    """The configuration in `data`, transformers' or timm's. What is not in the tables of `hf_fields` is left
    out of it: where it says how to compute it (attention, dtype, kernels), it is for the reader to choose.

    Raises `Rejected`: `unknown_model_type`, `unknown_architecture`, `remote_code`, `quantised_folder`,
    `config_field`, and what is not bounded JSON.
    """
    document = load(data, "config.json")
    if timm_config.is_timm(document):
        return timm_config.admit(document)
    model_type = _known(document)
    for key, (code, what) in _REFUSED.items():
        if document.get(key):
            raise Rejected(
                code,
                f"The field {key} of config.json {what}.",
                hint="Load it in transformers as one of its own classes, in floating point, and save it.",
                field=key,
            )
    return Config(model_type, _architecture(document, model_type), _fields(document, model_type))


def _known(document: Mapping[str, Any]) -> str:
    wanted = document.get("model_type")
    for model_type in FIELDS:
        if wanted == model_type:
            return model_type
    raise Rejected(
        "unknown_model_type",
        f"The model type of config.json is {shown(wanted)}, which is not read.",
        hint=f"Read are {names(FIELDS)}. Others: export the model with torch.export and upload the .pt2.",
        field="model_type",
    )


def _architecture(document: Mapping[str, Any], model_type: str) -> str:
    wanted = document.get("architectures") or [ARCHITECTURES[model_type][0]]
    if type(wanted) is list and len(wanted) == 1:
        wanted = wanted[0]
    for architecture in ARCHITECTURES[model_type]:
        if wanted == architecture:
            return architecture
    raise Rejected(
        "unknown_architecture",
        f"The architecture of config.json is {shown(wanted)}, which is not read for the type {model_type}.",
        hint=f"Read are {', '.join(ARCHITECTURES[model_type])}.",
        field="architectures",
    )


def _fields(document: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    aliases, known = ALIASES.get(model_type, {}), fields_of(model_type)
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = aliases.get(key, key)
        if name in known:
            found[name] = known[name].admit(key, value)
    labels = document.get("id2label")
    if labels is not None:
        found["num_labels"] = _count(labels)
    _demand_lengths(found, model_type)
    return found


def _count(labels: object) -> int:
    """How many labels there are; what they are called is of no use here."""
    if type(labels) is not dict or not 1 <= len(labels) <= _MAX_LABELS:
        raise refused("id2label", labels, f"an object of at most {_MAX_LABELS} labels")
    return len(labels)


def _demand_lengths(fields: Mapping[str, Any], model_type: str) -> None:
    """Lists that describe the same layers, or stages of layers, are equally long."""
    kinds = fields.get("layer_types")
    if kinds is not None and len(kinds) != fields.get("num_hidden_layers", len(kinds)):
        raise refused("layer_types", kinds, "one for every layer")
    if model_type in ("swin", "resnet"):
        lists = [fields[name] for name in ("depths", "num_heads", "hidden_sizes") if name in fields]
        if any(len(one) != len(lists[0]) for one in lists):
            raise refused("depths", lists[0], "as many numbers as num_heads or hidden_sizes has")
