"""Loops over time: ONNX's Scan as torch's."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from workers.engine.admit.onnx_model import Graph
from workers.engine.formats.onnx_in.folding import reads
from workers.engine.formats.onnx_in.registry import Call
from workers.engine.formats.onnx_in.values import Value, as_tensor

_Run = Callable[[Graph, int, dict[str, Value]], None]


def scan(call: Call, values: dict[str, Value], run: _Run) -> Sequence[Tensor]:
    """The last carried values, and what the steps emitted, stacked over the first axis.

    Raises `Rejected` (`unsupported_operator`) for other axes or directions, or a scan inside of a scan.
    """
    body, sequences = call.graph("body"), call.get("num_scan_inputs", 1)
    for name in ("scan_input_directions", "scan_output_directions", "scan_input_axes", "scan_output_axes"):
        if any(call.get(name, ())):
            raise call.unsupported(f"{name} other than 0")
    if any(inner.operator == "Scan" for inner in body.nodes):
        raise call.unsupported("a scan inside of a scan")
    given = [as_tensor(values[name]) for name in call.node.inputs]
    carried, xs = given[: len(given) - sequences], given[len(given) - sequences :]
    own = [spec.name for spec in body.inputs]
    outer = _captured(body, values)

    def step(*slices: Tensor) -> list[Tensor]:
        inner: dict[str, Value] = {
            name: value for name, value in values.items() if not isinstance(value, Tensor)
        }
        inner.update(zip([*own, *outer], slices, strict=True))
        run(body, call.opset, inner)
        results = [as_tensor(inner[name]) for name in body.outputs]
        # torch's scan wants results of their own
        return [each.clone() if any(each is other for other in slices) else each for each in results]

    weights = tuple(as_tensor(values[name]) for name in outer)
    found: Sequence[Tensor] = torch.ops.higher_order.scan(step, carried, xs, weights)
    return found


def _captured(body: Graph, values: dict[str, Value]) -> list[str]:
    """The tensors around a body that it reads."""
    return sorted(name for name in set(reads(body)) if isinstance(values.get(name), Tensor))
