"""Candidates of models that came as Hugging Face folders, as folders again."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from app.contract.plan import Plan
from workers.engine.errors import EngineError
from workers.engine.formats.hf import writer
from workers.stages.context import Context
from workers.stages.measure import final


def ship(context: Context, name: str, plan: Plan, prove: Callable[[Path], None]) -> None:
    """Write a candidate as a folder in a zip and `prove` that it computes the same; where it cannot be
    written or does not, say why there is none: the other artifacts are no worse for it."""
    forms = {layer.name: writer.Form(layer.method.value, tuple(layer.rank or ())) for layer in plan.layers}
    try:
        prove(writer.write(context.input("model"), final(context, name), forms, context.artifacts / name))
    except EngineError as error:
        for path in _made(context, name).values():
            path.unlink(missing_ok=True)
        detail = f"{name}: there is no Hugging Face folder. {error.detail}"
        context.notice(error.code, detail, error.layer)


def opened_by(context: Context, name: str) -> Literal["from_pretrained", "load.py"] | None:
    """What opens a candidate's folder, where there is one."""
    plain, factors = (_made(context, name)[form].exists() for form in ("folder", "factors"))
    return "from_pretrained" if plain else "load.py" if factors else None


def _made(context: Context, name: str) -> dict[str, Path]:
    return {form: context.artifacts / f"{name}-{form}.zip" for form in ("folder", "factors")}
