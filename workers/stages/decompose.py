"""Decomposing: the plan's forms go into a copy of the graph; then the closed-form repairs."""

from app.contract.plan import LayerPlan, Plan
from app.contract.status import Stage
from workers.engine.batch_norm import reestimate_batch_norm
from workers.engine.formats import pt2
from workers.engine.graph import surgery
from workers.engine.graph.network import Network, trace
from workers.engine.layers.base import Layer, relative_error
from workers.engine.layers.find import find
from workers.stages.context import Context, load, save

_CALIBRATION_BATCH = 64
_PLANS = "plans.json"


def run(context: Context) -> None:
    """One compressed network per plan, and the plans with the errors of the factors that went in."""
    plans = load(context.folder(Stage.PLAN) / "plans.json", list[Plan])
    done = []
    for index, plan in enumerate(plans):
        network, layers = decompose(context.original, plan.layers)
        _repair(context, network)
        pt2.write(network, context.folder(Stage.DECOMPOSE) / f"candidate-{index}.pt2")
        done.append(plan.model_copy(update={"layers": layers}))
        context.advance(Stage.DECOMPOSE, (index + 1) / len(plans))
    save(context.folder(Stage.DECOMPOSE) / _PLANS, done)


def decomposed(context: Context) -> list[Plan]:
    """The plans as they were carried out: one per candidate."""
    return load(context.folder(Stage.DECOMPOSE) / _PLANS, list[Plan])


def decompose(original: Network, plans: list[LayerPlan]) -> tuple[Network, list[LayerPlan]]:
    """A rewritten copy of `original`, and the plans with the measured errors."""
    copy = original.copy()
    layers = {layer.name: layer for layer in find(copy)}
    done = [_apply(layers[plan.name], plan) for plan in plans]
    surgery.prune(copy.module)
    return trace(copy.module, copy.inputs), done


def _apply(layer: Layer, plan: LayerPlan) -> LayerPlan:
    if plan.rank is None:
        return plan
    W = layer.site.W
    rewritten = layer.methods[plan.method].rewrite(tuple(plan.rank))
    error = relative_error(W, rewritten.weight)
    return plan.model_copy(update={"weight_error": error, "warnings": list(rewritten.warnings)})


def _repair(context: Context, network: Network) -> None:
    if context.splits.calibration is not None:
        reestimate_batch_norm(network, context.splits.calibration.batches(_CALIBRATION_BATCH, whole=True))
