"""Carrying a plan out: its forms go into a copy of the graph, and what has a closed form is repaired."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.contract.plan import LayerPlan, Plan
from workers.engine.batch_norm import correct_batch_norm
from workers.engine.data import Examples
from workers.engine.graph import surgery
from workers.engine.graph.network import Network
from workers.engine.layers.base import Form, Layer, relative_error
from workers.engine.layers.substitute import Substitute, substitute
from workers.stages.calibration import batches
from workers.stages.context import Context

_REPAIR_ROWS, _ROUGH_ROWS = 128, 32


@dataclass(frozen=True)
class Decomposed:
    """A plan carried out: the network, the plan with measured errors, and the dense tensors it stands for."""

    network: Network
    plan: Plan
    substitutes: dict[str, Substitute]


def carry_out(
    context: Context, plan: Plan, copy: Network, layers: Sequence[Layer], rows: Examples | None
) -> Decomposed:
    """Rewrite `copy`, whose `layers` know their weightings, by the plan; rows re-estimate statistics."""
    by_name = {layer.name: layer for layer in layers}
    substitutes: dict[str, Substitute] = {}
    done = [_apply(by_name[layer.name], layer, substitutes) for layer in plan.layers]
    surgery.prune(copy.module)
    if rows is not None:
        rows = rows.first(_REPAIR_ROWS if all(layer.polished for layer in layers) else _ROUGH_ROWS)
        correct_batch_norm(context.dense, copy, batches(context, rows))
    return Decomposed(copy, plan.model_copy(update={"layers": done}), substitutes)


def _apply(layer: Layer, plan: LayerPlan, substitutes: dict[str, Substitute]) -> LayerPlan:
    if plan.rank is None:
        return plan
    W = layer.weight
    form = Form(plan.method, tuple(plan.rank), plan.parameters[1], plan.macs[1], plan.discarded_energy)
    rewritten, substitutes[plan.name] = substitute(layer, form)
    error = relative_error(W, rewritten.weight)
    return plan.model_copy(update={"weight_error": error, "warnings": list(rewritten.warnings)})
