"""An uploaded Hugging Face folder as a network."""

import inspect
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.engine.admit import hf_folder, timm_config
from workers.engine.admit.archive import Archive
from workers.engine.admit.hf_fields import Config
from workers.engine.admit.hf_folder import Folder
from workers.engine.errors import Rejected
from workers.engine.formats.hf import timm_models, weights
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


def read(path: Path) -> Imported:
    """The network in the zip of a Hugging Face folder, in evaluation mode and single precision, on the CPU.

    The folder is admitted and its arrays are read from raw bytes: transformers gets a configuration of known
    fields and tensors, never a file, and looks for nothing on the network. Layers are called as in its
    modules. Raises `Rejected`: what admission refuses, `missing_weights`, `unexpected_weights`,
    `shapes_differ`, `integer_weights`, `cannot_load`, `cannot_trace`.
    """
    with hf_folder.admit(path) as (folder, archive):
        from_timm = folder.config.model_type == timm_config.MODEL_TYPE
        try:
            return timm_models.imported(folder, archive) if from_timm else _imported(folder, archive)
        except (Rejected, OSError, MemoryError):
            raise
        except Exception as error:  # whatever they raise on a configuration that makes no sense to them
            who = "timm" if from_timm else "Transformers"
            raise Rejected(
                "cannot_load",
                f"{who} cannot make the model: {reason(error).rstrip('.')}.",
                hint="Check that the library itself loads the folder, and save it again.",
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
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict=weights.read(folder.shards, archive),
        dtype=torch.float32,
        attn_implementation=_attention(kind, folder.config),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they are told apart below
        output_loading_info=True,
        **arguments,
    )
    left_over = weights.demand_agreement(info, weights.LEFT_OVER)
    return model.eval(), tuple(weights.remarks(folder.shards, left_over))


def _attention(kind: Any, config: Config) -> str:
    return SIGNATURES[config.model_type].attention if kind._supports_sdpa else "eager"


def _demand_size(kind: Any, config: Any, folder: Folder, arguments: Mapping[str, Any]) -> None:
    from transformers.initialization import no_init_weights  # noqa: PLC0415

    with torch.device("meta"), no_init_weights():
        weights.demand_size(kind(config, **arguments), folder.shards)


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
