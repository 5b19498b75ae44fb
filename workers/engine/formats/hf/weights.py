"""The arrays of a folder as a model's weights: all of them, and no others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workers.engine.admit.archive import Archive
from workers.engine.admit.hf_folder import Shard
from workers.engine.admit.safetensors import Span
from workers.engine.errors import Rejected
from workers.engine.formats.imported import Remark

_SPARE_NUMBERS = 1 << 24  # tables that follow from the configuration are in no file
_SHOWN = 5
# Parts of a model of transformers that a class without them leaves in the file: heads and poolers of others,
# and tables that older releases stored.
LEFT_OVER = (
    *("pooler", "cls", "lm_head", "vocab_transform", "vocab_layer_norm", "vocab_projector", "classifier"),
    *("pre_classifier", "qa_outputs", "score", "decoder", "proj_out", "position_ids", "inv_freq"),
    *("masked_bias", "relative_position_index", "mask_token"),
)


def demand_size(shell: nn.Module, shards: Sequence[Shard]) -> None:
    """No more memory than the file has weights for; ties count twice. `shell` is the model without numbers.

    Raises `Rejected` (`missing_weights`).
    """
    described = sum(tensor.numel() for tensor in [*shell.parameters(), *shell.buffers()])
    stored = sum(torch.Size(array.shape).numel() for shard in shards for array in shard.arrays)
    if described > 2 * stored + _SPARE_NUMBERS:
        raise Rejected(
            "missing_weights",
            f"config.json describes a network of {described} numbers, the weights are {stored}.",
            hint="Upload config.json and weights of one and the same save_pretrained.",
            field="config.json",
        )


def read(shards: Iterable[Shard], archive: Archive) -> dict[str, Tensor]:
    """Every array as a tensor of its own, in single precision where it has fractions; none is held twice."""
    weights: dict[str, Tensor] = {}
    for shard in shards:
        begin = shard.arrays[0].begin if shard.arrays else archive.size(shard.entry)
        archive.read_into(shard.entry, _buffers(shard.arrays, weights), skip=begin)
        for array in shard.arrays:
            values = weights[array.name].view(getattr(torch, array.dtype)).reshape(array.shape)
            weights[array.name] = values.float() if values.is_floating_point() else values
    return weights


def _buffers(arrays: Iterable[Span], weights: dict[str, Tensor]) -> Iterator[memoryview]:
    """Where the bytes of one array after the other go; each is put into `weights` as it is asked for."""
    for array in arrays:
        if not getattr(torch, array.dtype).is_floating_point and array.name.endswith(".weight"):
            raise Rejected(
                "integer_weights",
                f"The weight {array.name} is of the dtype {array.dtype}: quantised weights are not read.",
                hint="Upload the model as it was before it was quantised.",
                layer=array.name.rpartition(".")[0],
            )
        weights[array.name] = torch.empty(array.end - array.begin, dtype=torch.uint8)
        yield weights[array.name].numpy().data


def demand_agreement(info: Mapping[str, Any], spare: Sequence[str] = ()) -> list[str]:
    """The arrays with a part of their names in `spare`, which belong to other heads; everything else has to
    be there, of its shape, and of use.

    `info` is what transformers says of loading. Raises `Rejected`: `shapes_differ`, `missing_weights`,
    `unexpected_weights`, `cannot_load`.
    """
    mismatched = [str(found[0]) for found in info["mismatched_keys"]]
    left_over = [name for name in info["unexpected_keys"] if set(name.split(".")) & set(spare)]
    unexpected = set(info["unexpected_keys"]) - set(left_over)
    for code, names, what in (
        ("shapes_differ", mismatched, "have other shapes than config.json describes"),
        ("missing_weights", info["missing_keys"], "are missing"),
        ("unexpected_weights", unexpected, "belong to no layer that config.json describes"),
    ):
        if names:
            raise Rejected(
                code,
                f"{len(names)} weights {what}: {_some(names)}.",
                hint="Upload config.json and weights of one and the same save_pretrained.",
                layer=min(names).rpartition(".")[0] or None,
            )
    if info["error_msgs"]:
        raise Rejected("cannot_load", f"Transformers cannot load the weights: {info['error_msgs'][0]}")
    return left_over


def remarks(shards: Iterable[Shard], left_over: Sequence[str]) -> Iterator[Remark]:
    """What the user should know: which weights became wider, and which were left out."""
    stored = {array.dtype for shard in shards for array in shard.arrays} & {"float16", "bfloat16"}
    if stored:
        yield Remark(
            "single_precision",
            f"Weights stored as {' and '.join(sorted(stored))} are turned into single precision.",
        )
    if left_over:
        yield Remark(
            "weights_left_out",
            f"{len(left_over)} arrays of the file are no part of this architecture: {_some(left_over)}.",
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (" and others" if len(ordered) > _SHOWN else "")
