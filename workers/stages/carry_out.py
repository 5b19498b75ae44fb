"""Carrying a plan out: its forms go into a copy of the graph, and what has a closed form is repaired."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.contract.plan import LayerPlan, Plan
from workers.engine.batch_norm import correct_batch_norm, watch
from workers.engine.data import Examples
from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.base import Form, Layer, relative_error
from workers.engine.layers.substitute import Substitute, substitute
from workers.stages.calibration import batches, is_dear
from workers.stages.context import Context

_REPAIR_ROWS, _DEAR_ROWS, _TRIAL_ROWS = 128, 32, 16


@dataclass(frozen=True)
class Decomposed:
    """A plan carried out: the network, the plan with measured errors, and the dense tensors it stands for."""

    network: Network
    plan: Plan
    substitutes: dict[str, Substitute]


def carry_out(
    context: Context,
    plan: Plan,
    copy: Network,
    layers: Sequence[Layer],
    rows: Examples | None,
    part: int | None = None,
) -> Decomposed:
    """Rewrite `copy`, whose `layers` know their weightings, by the plan; rows re-estimate statistics: the
    calibration's, without those of a `part`."""
    by_name = {layer.name: layer for layer in layers}
    substitutes: dict[str, Substitute] = {}
    done = [_apply(by_name[layer.name], layer, substitutes) for layer in plan.layers]
    surgery.prune(copy.module)
    if rows is not None:
        trial = not all(layer.polished for layer in layers)
        count = _TRIAL_ROWS if trial else _DEAR_ROWS if is_dear(context) else _REPAIR_ROWS
        _repair(context, copy, rows.first(count), part)
    return Decomposed(copy, plan.model_copy(update={"layers": done}), substitutes)


def _repair(context: Context, copy: Network, rows: Examples, part: int | None) -> None:
    seen = context.once((watch, len(rows), part), lambda: watch(context.dense, batches(context, rows)))
    correct_batch_norm(copy, batches(context, rows), seen)


def _apply(layer: Layer, plan: LayerPlan, substitutes: dict[str, Substitute]) -> LayerPlan:
    if plan.rank is None:
        return plan
    W = layer.weight
    form = Form(plan.method, tuple(plan.rank), plan.parameters[1], plan.macs[1], plan.discarded_energy)
    rewritten, substitutes[plan.name] = substitute(layer, form)
    error = relative_error(W, rewritten.weight)
    return plan.model_copy(update={"weight_error": error, "warnings": list(rewritten.warnings)})
