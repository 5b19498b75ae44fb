"""The API's description and the report's schema as committed files, so that reviews see every change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.contract.report import Report
from app.main import create_app
from app.settings import Settings

FOLDER = Path(__file__).parent
GOLDEN: dict[str, Callable[[], dict[str, Any]]] = {
    "openapi.json": lambda: create_app(Settings()).openapi(),
    "report.schema.json": lambda: Report.model_json_schema(mode="serialization"),
}


def text(name: str) -> str:
    """What the golden file has to hold."""
    return json.dumps(GOLDEN[name](), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
