"""Templates, and the words that numbers and times are shown in."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from app import comparison

FOLDER = Path(__file__).parent
_WORDS = {"better": "Better", "trade_off": "Trade-off", "not_worth_it": "Not worth it"}


def render(request: Request, name: str, context: dict[str, Any], status: int = 200) -> Response:
    """The page or fragment `name`; browsers keep none of them."""
    response = _TEMPLATES.TemplateResponse(request, name, context, status_code=status)
    response.headers["Cache-Control"] = "no-store"
    return response


def minute(moment: datetime) -> str:
    """A time for people: `2026-11-23 20:57 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return comparison.NONE
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def lasted(started: datetime | None, finished: datetime | None) -> str:
    """How long it took, so far if it has not ended."""
    if started is None:
        return comparison.NONE
    return duration(((finished or datetime.now(UTC)) - started).total_seconds())


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": comparison.count,
        "size": comparison.size,
        "metric": comparison.metric_value,
        "minute": minute,
        "duration": duration,
        "whole": "{:,}".format,
        "verdict": _WORDS.__getitem__,
    }
    environment.globals |= {"lasted": lasted, "dash": comparison.NONE}
    return environment


_TEMPLATES = Jinja2Templates(env=_environment())
