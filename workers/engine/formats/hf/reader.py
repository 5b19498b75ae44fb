"""An uploaded Hugging Face folder as a network."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.engine.admit import hf_folder
from workers.engine.admit.archive import Archive
from workers.engine.admit.hf_config import Config
from workers.engine.admit.hf_folder import Folder, Shard
from workers.engine.admit.safetensors import Span
from workers.engine.errors import Rejected
from workers.engine.formats.hf.library import library
from workers.engine.formats.hf.signatures import (
    ENCODERS,
    SIGNATURES,
    TOKENS,
    construction,
    inputs_of,
    keywords_of,
    outputs_of,
)
from workers.engine.formats.imported import Imported, Remark
from workers.engine.formats.reason import reason
from workers.engine.graph.network import trace

_SPARE_NUMBERS = 1 << 24  # tables that follow from the configuration are in no file
_SHOWN = 5
# Parts of a model that a class without them leaves in the file: heads and poolers of others, and tables that
# older releases stored.
_LEFT_OVER = (
    *("pooler", "cls", "lm_head", "vocab_transform", "vocab_layer_norm", "vocab_projector", "classifier"),
    *("pre_classifier", "qa_outputs", "score", "decoder", "proj_out", "position_ids", "inv_freq"),
    *("masked_bias", "relative_position_index", "mask_token"),
)


def read(path: Path) -> Imported:
    """The network in the zip of a Hugging Face folder, in evaluation mode and single precision, on the CPU.

    The folder is admitted and its arrays are read from raw bytes: transformers gets a configuration of known
    fields and tensors, never a file, and looks for nothing on the network. Layers are called as in its
    modules. Raises `Rejected`: what admission refuses, `missing_weights`, `unexpected_weights`,
    `shapes_differ`, `integer_weights`, `cannot_load`, `cannot_trace`.
    """
    with hf_folder.admit(path) as (folder, archive):
        try:
            return _imported(folder, archive)
        except (Rejected, OSError, MemoryError):
            raise
        except (
            Exception
        ) as error:  # whatever transformers raises on a configuration that makes no sense to it
            raise Rejected(
                "cannot_load",
                f"Transformers cannot make the model: {reason(error).rstrip('.')}.",
                hint="Check that from_pretrained loads the folder, and save it again.",
            ) from error


def _imported(folder: Folder, archive: Archive) -> Imported:
    model_type, architecture = folder.config.model_type, folder.config.architecture
    model, remarks = model_of(folder, archive, construction(architecture))
    inputs = inputs_of(model_type, architecture, model.config)
    tokens = {spec.name for spec in inputs} <= TOKENS
    tokenizer = hf_folder.tokenizer(archive) if tokens else None
    module = _wrapped(model, folder.config, [spec.name for spec in inputs])
    try:
        return Imported(trace(module, inputs), remarks, architecture, tokenizer)
    except MemoryError:
        raise
    except Exception as error:
        raise Rejected("cannot_trace", f"Torch cannot run the model: {reason(error)}") from error


def model_of(
    folder: Folder, archive: Archive, arguments: Mapping[str, Any]
) -> tuple[Any, tuple[Remark, ...]]:
    """The model with its weights, all of them from the file, made with `arguments` besides its configuration;
    raises `Rejected` as `read` does."""
    kind = getattr(library(), folder.config.architecture)  # our own name: admission compared, and kept ours
    config = kind.config_class(**folder.config.fields)
    _demand_size(kind, config, folder, arguments)
    stored = {array.dtype for shard in folder.shards for array in shard.arrays} & {"float16", "bfloat16"}
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict=_weights(folder.shards, archive),
        dtype=torch.float32,
        attn_implementation=_attention(kind, folder.config),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they are told apart below
        output_loading_info=True,
        **arguments,
    )
    left_over = _demand_agreement(info)
    return model.eval(), tuple(_remarks(stored, left_over))


def _attention(kind: Any, config: Config) -> str:
    return SIGNATURES[config.model_type].attention if kind._supports_sdpa else "eager"


def _demand_size(kind: Any, config: Any, folder: Folder, arguments: Mapping[str, Any]) -> None:
    """No more memory than the file has weights for; ties count twice."""
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    with torch.device("meta"), no_init_weights():
        shell = kind(config, **arguments)
    described = sum(tensor.numel() for tensor in [*shell.parameters(), *shell.buffers()])
    stored = sum(torch.Size(array.shape).numel() for shard in folder.shards for array in shard.arrays)
    if described > 2 * stored + _SPARE_NUMBERS:
        raise Rejected(
            "missing_weights",
            f"config.json describes a network of {described} numbers, the weights are {stored}.",
            hint="Upload config.json and weights of one and the same save_pretrained.",
            field="config.json",
        )


def _weights(shards: Iterable[Shard], archive: Archive) -> dict[str, Tensor]:
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


def _demand_agreement(info: Mapping[str, Any]) -> list[str]:
    """The arrays that belong to other heads; everything else has to be there, of its shape, and of use."""
    mismatched = [str(found[0]) for found in info["mismatched_keys"]]
    left_over = [name for name in info["unexpected_keys"] if set(name.split(".")) & set(_LEFT_OVER)]
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


def _remarks(stored: set[str], left_over: Sequence[str]) -> Iterable[Remark]:
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


def _wrapped(model: Any, config: Config, names: Sequence[str]) -> nn.Module:
    """The model with tensors in order as its inputs, and tensors as its outputs; paths stay what they are."""
    outputs, keywords = outputs_of(config.architecture), keywords_of(config.model_type, config.architecture)
    root: nn.Module = model
    if config.architecture in ENCODERS:
        path = ENCODERS[config.architecture]
        model, root = attrgetter(path)(model), _placed(attrgetter(path)(model), path)
    compute = model.forward

    def forward(*tensors: Tensor) -> Any:
        found = compute(**dict(zip(names, tensors, strict=True)), **keywords)
        results = tuple(found[name] for name in outputs)
        return results[0] if len(results) == 1 else results

    # torch.export names the graph's inputs after the signature.
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    root.forward = forward
    root.eval()
    return root


def _placed(module: nn.Module, path: str) -> nn.Module:
    """A module with nothing but another at that path."""
    root = holder = nn.Module()
    *containers, last = path.split(".")
    for name in containers:
        holder.add_module(name, nn.Module())
        holder = holder.get_submodule(name)
    holder.add_module(last, module)
    return root
