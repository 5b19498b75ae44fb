"""Which jobs can be planned by what inspection left, without data and without a clock."""

from collections.abc import Iterator

from app.contract.spec import DEFAULT_METHODS, CrossValidationRanks, JobSpec, Method, VbmfRanks
from app.errors import Unprocessable

_PLANNED = {Method.KEEP, *(Method(method) for method in DEFAULT_METHODS)}
_HINT = "Submit the job: its report has the plan."


def check_plannable(spec: JobSpec) -> None:
    """Raise `Unprocessable` for what only a job can find out, naming the field."""
    for refusal in _refusals(spec):
        raise refusal


def _refusals(spec: JobSpec) -> Iterator[Unprocessable]:
    ranks, target = spec.ranks, spec.target
    if isinstance(ranks, VbmfRanks):
        yield _refused(
            "The selection vbmf looks at the weights themselves, which a plan does without.",
            "ranks.selection",
        )
    if isinstance(ranks, CrossValidationRanks):
        yield _refused(
            "The selection cross_validation runs the network on data; a plan runs nothing.", "ranks.selection"
        )
    if target.max_drop is not None:
        yield _refused("How far the metric falls is measured; a plan measures nothing.", "target.max_drop")
    if target.of == "latency":
        yield _refused("What a form takes is timed on a worker; a plan times nothing.", "target.of")
    for place, method in enumerate(spec.methods):
        if Method(method) not in _PLANNED:
            yield _unknown(Method(method), f"methods.{place}")
    for place, rule in enumerate(spec.layers):
        if rule.method is not None and rule.method not in _PLANNED:
            yield _unknown(rule.method, f"layers.{place}.method")


def _unknown(method: Method, field: str) -> Unprocessable:
    known = ", ".join(DEFAULT_METHODS)
    return _refused(f"What {method} loses is found out by a job only; plans know {known}.", field)


def _refused(detail: str, field: str) -> Unprocessable:
    return Unprocessable("not_plannable", detail, hint=_HINT, field=field)
