"""Planning a job that is not submitted."""

from app.contract.spec import JobSpec
from app.contract.summary import ModelSummary
from app.errors import Conflict, Unprocessable
from app.planning.errors import PlanningError
from app.planning.menus import menu_layers
from app.planning.plans import Total, make_plan
from app.plans.schemas import PlanView, candidate
from app.plans.validation import check_plannable


def plan(spec: JobSpec, model: ModelSummary) -> PlanView:
    """The plans of a valid job, one for each `keep`, from the model's menus.

    Raises `Unprocessable` naming the field, and `Conflict` for a model whose inspection left no menus yet.
    """
    check_plannable(spec)
    if model.menus is None:
        raise Conflict(
            "model_without_menus",
            "There is nothing to plan by: inspection is still at it, which takes a minute for large models, "
            "or left nothing, since the model is very large, or older than plans are.",
            hint="Ask again in a minute, or submit the job: its report has the plan. A model from before "
            "there were plans can be uploaded again.",
            field="model",
        )
    layers, total = menu_layers(model.layers, model.menus), Total(model.parameters, model.macs)
    try:
        plans = [make_plan(layers, total, spec, keep) for keep in spec.target.keeps]
    except PlanningError as error:
        problem = error.problem
        raise Unprocessable(
            problem.code, problem.detail, hint=problem.hint, layer=problem.layer, field=problem.field
        ) from error
    first, *others = map(candidate, plans)
    return PlanView(model=spec.model, **dict(first), others=others)
