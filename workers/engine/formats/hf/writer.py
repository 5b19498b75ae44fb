"""A network that came as a Hugging Face folder, as a folder again."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from workers.engine.admit import hf_config, hf_folder
from workers.engine.admit.archive import Archive
from workers.engine.admit.document import load as load_json
from workers.engine.admit.hf_folder import Folder
from workers.engine.errors import EngineError
from workers.engine.formats.hf import reader
from workers.engine.formats.hf.chains import Chain, Factor, chains, weight_of
from workers.engine.formats.hf.signatures import construction
from workers.engine.graph.network import Network
from workers.engine.graph.surgery import every_tensor

_FACTOR = ".weight_"


@dataclass(frozen=True)
class Form:
    """How a layer was factorised."""

    method: str
    rank: tuple[int, ...]


def write(source: Path, network: Network, forms: Mapping[str, Form], stem: Path) -> Path:
    """Write a network, made from the folder in the zip `source`, as a zip beside `stem`; its path.

    Where every layer is what it was in transformers, that is `…-folder.zip`, which `from_pretrained` opens
    when unpacked. Else `…-factors.zip`: `factors.safetensors`, `ranks.json`, which says what the layers named
    in `forms` became, and `load.py`, which puts transformers' class and these together. Tokenizers and what
    else stood beside the model go along. Parts of the class that the network leaves out are the source's.

    Raises `EngineError` (`folder_unsupported`), naming the layer that is no row of modules.
    """
    with hf_folder.admit(source) as (folder, archive):
        arguments = _arguments(folder)
        model, _ = reader.model_of(folder, archive, arguments)
        _name_labels(model, archive)
        factorised = _factorised(network, every_tensor(model))
        rows = {layer: _rows(network, layer, parts, model) for layer, parts in factorised.items()}
        _copy(network, model)
        with tempfile.TemporaryDirectory(dir=stem.parent, prefix="folder") as made:
            if rows:
                manifest = {"class": folder.config.architecture, "arguments": arguments}
                _write_factors(network, model, rows, forms, manifest, Path(made))
            else:
                model.save_pretrained(made)
            path = stem.with_name(f"{stem.name}-{'factors' if rows else 'folder'}.zip")
            _pack(Path(made), archive, path)
    return path


def _arguments(folder: Folder) -> dict[str, Any]:
    """What the class is made with: a pooler where the file has one, though the network does without."""
    pooled = any("pooler" in array.name.split(".") for shard in folder.shards for array in shard.arrays)
    return dict.fromkeys(construction(folder.config.architecture), pooled)


def _name_labels(model: Any, archive: Archive) -> None:
    """The names of classes are of no use here, but to the user."""
    names = load_json(archive.read("config.json", hf_config.MAX_CONFIG_BYTES), "config.json").get("id2label")
    if isinstance(names, dict) and all(key.isdecimal() and type(name) is str for key, name in names.items()):
        model.config.id2label = {int(key): name for key, name in names.items()}
        model.config.label2id = {name: place for place, name in model.config.id2label.items()}


def _factorised(network: Network, known: Mapping[str, Tensor]) -> dict[str, frozenset[str]]:
    """The parameters that the model has not, by the layer in whose place they are."""
    found: dict[str, set[str]] = {}
    for path, _ in network.module.named_parameters():
        if path not in known:
            found.setdefault(path.partition(_FACTOR)[0], set()).add(path)
    return {layer: frozenset(parts) for layer, parts in found.items()}


def _rows(network: Network, layer: str, parts: frozenset[str], model: nn.Module) -> dict[str, Chain]:
    """What stands at each path of the model where the layer's weight was."""
    found = chains(network.module, parts)
    rows = {path: _row_for(module, found) for path, module in _sharing(model, layer)}
    complete = {path: row for path, row in rows.items() if row is not None}
    if not rows or len(complete) < len(rows):
        raise EngineError(
            "folder_unsupported",
            f"What {layer} became is no row of torch's modules, so that no Hugging Face folder can hold it.",
            hint="Leave `huggingface` out of `outputs`, or the method out of `methods`.",
            layer=layer,
            field="outputs",
        )
    return complete


def _sharing(model: nn.Module, layer: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules with the layer's weight, under all their paths."""
    weight = every_tensor(model).get(f"{layer}.weight")
    for path, module in model.named_modules(remove_duplicate=False):
        if weight is not None and module._parameters.get("weight") is weight:
            yield path, module


def _row_for(module: nn.Module, found: Sequence[Chain]) -> Chain | None:
    """The one row that takes and gives what a module does."""
    wanted = isinstance(module, nn.Embedding), *_ends(module)
    rows = [
        row for row in found if wanted == (row[0].type == "Embedding", _width(row[0], 0), _width(row[-1], 1))
    ]
    return rows[0] if len(rows) == 1 else None


def _width(factor: Factor, end: int) -> int:
    names = {
        "Linear": ("in_features", "out_features"),
        "Embedding": ("num_embeddings", "embedding_dim"),
    }.get(factor.type, ("in_channels", "out_channels"))
    return int(factor.arguments[names[end]])


def _ends(module: nn.Module) -> tuple[int, int]:
    """How wide a module's input and output are."""
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.in_channels, module.out_channels
    shape: Any = module.weight.shape
    return tuple(shape[::-1] if isinstance(module, nn.Linear) else shape)  # transformers' Conv1D


def _copy(network: Network, model: nn.Module) -> None:
    """The network's values, wherever the model has the same tensor."""
    values = every_tensor(network.module)
    with torch.no_grad():
        for path, tensor in every_tensor(model).items():
            if path in values:
                tensor.copy_(values[path])


def _write_factors(
    network: Network,
    model: Any,
    rows: Mapping[str, Mapping[str, Chain]],
    forms: Mapping[str, Form],
    manifest: Mapping[str, Any],
    folder: Path,
) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415 -- as transformers: for folders alone

    from workers.engine.formats.hf import load  # noqa: PLC0415

    described, same = [], {}
    for layer, modules in rows.items():
        biases = {path: model.get_submodule(path)._parameters.get("bias") for path in modules}
        factors = {path: _described(network, row, biases[path] is not None) for path, row in modules.items()}
        described.append({"layer": layer, **_form(forms, layer), "modules": factors})
        made = {path: load.row(list_) for path, list_ in factors.items()}
        for path, row in modules.items():
            same.update(_fill(made[path], network, row, biases[path], path))
        load.put(model, made)
    state, tied = _once(model.state_dict(), same)
    save_file(state, folder / "factors.safetensors")
    (folder / "ranks.json").write_text(json.dumps({**manifest, "layers": described, "tied": tied}, indent=1))
    model.config.save_pretrained(folder)
    shutil.copyfile(str(load.__file__), folder / "load.py")


def _form(forms: Mapping[str, Form], layer: str) -> dict[str, Any]:
    return asdict(forms[layer]) if layer in forms else {}


def _described(network: Network, row: Chain, biased: bool) -> list[dict[str, Any]]:
    """The factors as `load.row` takes them, the bias with the last; shapes are the weights'."""
    described = []
    for factor in row:
        arguments = dict(factor.arguments)
        if factor.type != "Embedding":
            arguments["bias"] = biased and factor is row[-1]
        shape = list(weight_of(factor, network.module).shape)
        described.append({"type": factor.type, "shape": shape, "arguments": arguments})
    return described


def _fill(
    made: nn.Sequential, network: Network, row: Chain, bias: Tensor | None, path: str
) -> dict[str, tuple[str, bool]]:
    """Give modules their values; which tensor of the network each weight is, and how it lies."""
    modules: list[Any] = list(made)
    with torch.no_grad():
        for module, factor in zip(modules, row, strict=True):
            module.weight.copy_(weight_of(factor, network.module))
    if bias is not None:
        modules[-1].bias = bias
    return {f"{path}.{place}.weight": (factor.weight, factor.transposed) for place, factor in enumerate(row)}


def _once(
    state: Mapping[str, Tensor], same: Mapping[str, tuple[str, bool]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor under one name, and which other names it has."""
    kept: dict[Any, str] = {}
    tied, stored = {}, {}
    for name, tensor in state.items():
        first = kept.setdefault(same.get(name, (tensor.data_ptr(), tensor.shape)), name)
        if first == name:
            stored[name] = tensor.contiguous()
        else:
            tied[name] = first
    return stored, tied


def _pack(made: Path, archive: Archive, path: Path) -> None:
    """What was made, and what stood beside the model, into one zip: no dates, no compression."""
    beside = set(archive.names) & hf_folder.BESIDE
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(made.iterdir()):
            if file.name not in beside:
                with file.open("rb") as source, _entry(packed, file.name) as entry:
                    shutil.copyfileobj(source, entry, 1 << 20)
        for name in sorted(beside):
            with _entry(packed, name) as entry:
                entry.writelines(archive.chunks(name))


def _entry(packed: zipfile.ZipFile, name: str) -> IO[bytes]:
    return packed.open(zipfile.ZipInfo(name), "w", force_zip64=True)
