"""A job's real process whose pipeline attacks, itself and from a clean process, and tells how that went."""

import json
import os
import runpy
from pathlib import Path
from typing import Any

from app.contract.problem import Problem
from tests.workers.sandbox import attacks
from workers.child import Emit, main
from workers.engine import clean_process
from workers.engine.errors import EngineError
from workers.messages import Failed, Order


def run(order: Order, workspace: Path, emit: Emit) -> None:
    """The order's formats hold the targets; what was found is a problem's detail."""
    found: dict[str, Any] = {"attacks": attacks.attempt(json.loads(order.formats["targets"]))}
    if order.formats["confined"]:
        found |= {
            "clean": _from_a_clean_process(workspace),
            "calls": attacks.call_them_all(),
            "good": attacks.good(),
            "open": attacks.descriptors(),
            "environment": dict(os.environ),
        }
    emit(Failed(problem=Problem.of("attacked", json.dumps(found))))


def _from_a_clean_process(workspace: Path) -> dict[str, str]:
    """By a script in the scratch folder: nothing else of the tests can be read there."""
    try:
        clean_process.run(runpy.run_path, {"path_name": str(workspace / "attack.py")}, 60)
    except EngineError as error:
        if error.code != "attacked":
            raise
        told: dict[str, str] = json.loads(error.detail)
        return told
    raise AssertionError("the script did not end as it should")


if __name__ == "__main__":
    main(run)
