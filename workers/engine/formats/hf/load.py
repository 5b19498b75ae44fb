"""Opens the folder that this file is in: a model of transformers, some layers of which were factorised.

    from load import load
    model = load()

ranks.json says what stands for each of these layers; all other modules are transformers' own. Needs torch,
transformers and safetensors.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

TYPES = {each.__name__: each for each in (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)}


class Factors(nn.Sequential):
    """Layers in a row that stand for one."""

    @property
    def weight(self) -> Tensor:
        """The last factor's: models ask a layer for the dtype and the device of its weight."""
        last: Any = self[-1]
        weight: Tensor = last.weight
        return weight


def load(folder: Path | str = Path(__file__).parent) -> Any:
    """The model, in evaluation mode, on the CPU."""
    folder = Path(folder)
    manifest = json.loads((folder / "ranks.json").read_text())
    kind = getattr(transformers, manifest["class"])
    model = kind(kind.config_class.from_pretrained(folder), **manifest["arguments"])
    for layer in manifest["layers"]:
        put(model, {path: row(factors) for path, factors in layer["modules"].items()})
    stored = load_file(folder / "factors.safetensors")
    tied = {name: stored[kept] for name, kept in manifest["tied"].items()}
    model.load_state_dict({**stored, **tied})
    for name, kept in manifest["tied"].items():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, model.get_parameter(kept))
    return model.eval()


def row(factors: Sequence[Mapping[str, Any]]) -> Factors:
    """The modules that a list of the manifest describes, one after the other."""
    return Factors(*(TYPES[factor["type"]](**factor["arguments"]) for factor in factors))


def put(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put each module in the place of the one at its path, whose sizes models may ask it for."""
    for path, module in modules.items():
        asked = {key: value for key, value in vars(model.get_submodule(path)).items() if key[0] != "_"}
        vars(module).update({**asked, **vars(module)})
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, module)
