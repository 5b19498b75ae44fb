"""What tensors and inputs are called in the network: names from the file, made fit to be attribute paths."""

import keyword
import re

from torch import nn

_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)+", re.ASCII)
_UNFIT = re.compile(r"\W+", re.ASCII)
_RESERVED = frozenset({"self", "torch", "pytree", "fx_pytree", "device", "inf", "nan"})
_LONGEST = 120


def module_of(tensor: str, node: str, operator: str) -> str:
    """Where a layer's tensors go: the module that a tensor's name tells, or else the scope of its node.

    `layers.3.conv.weight` is in `layers.3.conv`, and so is `onnx::Conv_7` of the node `/layers.3/conv/Conv`.
    """
    if _PATH.fullmatch(tensor) and len(tensor) <= _LONGEST:
        return tensor.rpartition(".")[0]
    scope = [part for part in node.split("/") if part]
    if len(scope) > 1 and scope[-1].split("_")[0] == operator:
        scope.pop()
    return ".".join(scope)[-_LONGEST:] or operator.lower()


def identifier(name: str) -> str:
    """An ASCII identifier as near to the name as may be, and no word of Python or torch."""
    fit = _UNFIT.sub("_", name)[:_LONGEST] or "_"
    fit = f"_{fit}" if fit[0].isdigit() else fit
    return f"{fit}_" if keyword.iskeyword(fit) or fit in _RESERVED else fit


class Paths:
    """Hands out attribute paths, none of them twice or inside of another."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._containers: set[str] = set()

    def claim(self, module: str, leaves: list[str]) -> list[str]:
        """Paths of tensors that belong to one module; the module gets a number where its name is taken."""
        base = ".".join(filter(None, map(_part, re.split(r"[./]", module)))) or "constants"
        place = 1
        while True:
            root = base if place == 1 else f"{base}_{place}"
            paths = [f"{root}.{leaf}" for leaf in leaves]
            if all(map(self._is_free, paths)):
                break
            place += 1
        for path in paths:
            self._leaves.add(path)
            parts = path.split(".")
            self._containers |= {".".join(parts[:count]) for count in range(1, len(parts))}
        return paths

    def _is_free(self, path: str) -> bool:
        parts = path.split(".")
        inside = any(".".join(parts[:count]) in self._leaves for count in range(1, len(parts)))
        return not inside and path not in self._leaves and path not in self._containers


def _part(part: str) -> str:
    if part.isascii() and part.isdigit():
        return part
    fit = identifier(part).lstrip("_") or "x"
    fit = f"x{fit}" if fit[0].isdigit() else fit
    return f"{fit}_" if hasattr(nn.Module, fit) or fit == "training" or keyword.iskeyword(fit) else fit
