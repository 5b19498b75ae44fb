"""Linear maps onto the gates of a recurrent cell, as the operator calls that make them.

They are written once, for proxies: the same calls serve all steps of a sequence and one step of a loop.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

aten = torch.ops.aten


@dataclass(frozen=True)
class GateMap(ABC):
    """A map from vectors (…, r) to gates (…, g·H). `paths` are the parameters it reads, in order."""

    paths: tuple[str, ...]

    @abstractmethod
    def gates(self, p: Any, *parameters: Any) -> Any:
        """The calls that make the gates."""

    def all_steps(self, p: Any, bias: Any, *parameters: Any) -> Any:
        """The gates of a whole sequence, plus a bias (g·H,) unless it is None."""
        gates = self.gates(p, *parameters)
        return gates if bias is None else aten.add.Tensor(gates, bias)

    def one_step(self, p: Any, addend: Any, *parameters: Any) -> Any:
        """The gates of one step, plus an addend that fits unless it is None."""
        return self.all_steps(p, addend, *parameters)


@dataclass(frozen=True)
class MatrixMap(GateMap):
    """One matrix (g·H, r)."""

    def gates(self, p: Any, *parameters: Any) -> Any:
        """p Wᵀ."""
        return aten.linear.default(p, *parameters)

    def all_steps(self, p: Any, bias: Any, *parameters: Any) -> Any:
        """A linear call."""
        return aten.linear.default(p, *parameters, bias)

    def one_step(self, p: Any, addend: Any, *parameters: Any) -> Any:
        """A matrix product that starts from the addend: one Gemm in ONNX."""
        if addend is None:
            return self.gates(p, *parameters)
        return aten.addmm.default(addend, p, *map(aten.t.default, parameters))


@dataclass(frozen=True)
class TuckerMap(GateMap):
    """Tucker over (gates, hidden, r): core (r_gates · r_hidden, r), hidden factor (H, r_hidden), gate factor
    (g, r_gates)."""

    rank: tuple[int, int]

    def gates(self, p: Any, *parameters: Any) -> Any:
        """From the core outwards: the hidden mode, then the gates."""
        core, hidden, gate = parameters
        blocks = aten.unflatten.int(aten.linear.default(p, core), -1, list(self.rank))
        return _joined(aten.matmul.default(gate, aten.linear.default(blocks, hidden)))


@dataclass(frozen=True)
class CpMap(GateMap):
    """CP over (gates, hidden, r): hidden factor (H, r), gate factor (g, r)."""

    def gates(self, p: Any, *parameters: Any) -> Any:
        """Every gate scales the components before they meet the hidden factor."""
        hidden, gate = parameters
        return _joined(aten.linear.default(aten.mul.Tensor(aten.unsqueeze.default(p, -2), gate), hidden))


def _joined(blocks: Any) -> Any:
    """(…, g, H) as (…, g·H)."""
    return aten.flatten.using_ints(blocks, -2, -1)
