"""The constants of a graph: what is stored, what follows from it alone, and which of it the network keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from workers.engine.admit.onnx_model import SEPARATOR, StoredTensor
from workers.engine.formats.onnx_in.names import Paths, module_of
from workers.engine.formats.onnx_in.stored import in_file, is_large, let_go, loaded
from workers.engine.formats.onnx_in.values import Value, as_tensor, kept

_Print: TypeAlias = tuple[torch.Size, tuple[float, ...]]
_LEAST_TIED = 64  # elements: what is smaller may be equal by chance
_SEEN = 8  # rows and columns of a matrix that are looked at to tell it from others


@dataclass
class Constants:
    """Values by name. `origins` has the stored tensor that each came from, for its name.

    `paths` and `tensors` hold what becomes an attribute of the network, `learned` which of it is a parameter.
    """

    values: dict[str, Value] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    transposed: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)
    _free: Paths = field(default_factory=Paths)
    _layers: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    _matrices: dict[_Print, list[str]] = field(default_factory=dict)
    _in_file: dict[int, StoredTensor] = field(default_factory=dict)  # by the address of their first element

    def load(self, name: str, stored: StoredTensor) -> None:
        """Put a stored tensor among the values; a large one stays in the file until it is kept."""
        if is_large(stored):
            self.values[name] = tensor = in_file(stored)
            self._in_file[tensor.data_ptr()] = stored
        else:
            self.values[name] = kept(loaded(stored))

    def tensor(self, name: str) -> Tensor | None:
        """A constant as a tensor, or None where the name is not that of one."""
        return as_tensor(self.values[name]) if name in self.values else None

    def weights(
        self, source: str, how: str, node: tuple[str, str], tensors: Mapping[str, Tensor]
    ) -> list[str]:
        """Names of values that hold a layer's parameters, by what they are called in it.

        `source` names the constant they come from, `how` what was done to it: the same weights used again are
        the same parameters. `node` is the name and operator of the call.
        """
        return self._named(
            (source, how, *tensors), module_of(self.origins.get(source, source), *node), tensors
        )

    def beside(self, weight: str, source: str, leaf: str, tensor: Tensor, *, learned: bool = True) -> str:
        """The name of a value that holds what else the layer of a weight has, such as its bias."""
        module = self.paths[weight].rpartition(".")[0]
        return self._named((source, weight, leaf), module, {leaf: tensor}, learned=learned)[0]

    def _named(
        self, key: tuple[str, ...], module: str, tensors: Mapping[str, Tensor], *, learned: bool = True
    ) -> list[str]:
        tied = _fingerprint(tensors)
        if key not in self._layers and tied is not None:
            like = self._matrices.get(tied)
            (matrix,) = tensors.values()
            if like is not None and torch.equal(self.tensors[self.paths[like[0]]], matrix):
                self._layers[key] = like
        if key not in self._layers:
            paths = self._free.claim(module, list(tensors))
            names = [f"{SEPARATOR}weight {path}" for path in paths]
            for name, path, tensor in zip(names, paths, tensors.values(), strict=True):
                self.paths[name], self.tensors[path] = path, self._own(tensor)
            self.learned.update(paths if learned else ())
            self._layers[key] = names
            if tied is not None:
                self._matrices.setdefault(tied, names)
        return self._layers[key]

    def keep(self, name: str, *, learned: bool) -> None:
        """Make a tensor that is used as it is an attribute of the network."""
        value = self.values[name]
        if name in self.paths or not isinstance(value, Tensor):
            return
        origin = self.origins.get(name, name).replace("/", "_").replace("::", "_").replace(":", "_")
        module, _, leaf = origin.rpartition(".")
        (path,) = self._free.claim(module or "constants", [_leaf(leaf)])
        self.paths[name], self.tensors[path] = path, self._own(value)
        if learned:
            self.learned.add(path)

    def _own(self, tensor: Tensor) -> Tensor:
        """The same in row-major order and not in the file."""
        stored = self._in_file.get(tensor.untyped_storage().data_ptr())
        if stored is None:
            return tensor.contiguous()
        copy = tensor.clone(memory_format=torch.contiguous_format)
        let_go(stored)
        return copy


def _fingerprint(tensors: Mapping[str, Tensor]) -> _Print | None:
    """What equal matrices have in common; None for anything but one matrix.

    Exporters store the transpose of a tied matrix as a constant of its own: so ties are found again.
    """
    (matrix, *others) = tensors.values()
    if others or matrix.ndim != 2 or matrix.numel() < _LEAST_TIED:
        return None
    rows, columns = (max(1, size // _SEEN) for size in matrix.shape)
    return matrix.shape, tuple(matrix[::rows, ::columns].flatten().tolist())


def _leaf(name: str) -> str:
    leaf = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).strip("_")[
        -120:
    ]
    return f"c{leaf}" if not leaf or leaf[0].isdigit() else leaf
