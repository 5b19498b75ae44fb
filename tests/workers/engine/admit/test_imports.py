"""Admission stands on the standard library alone."""

import subprocess
import sys
from pathlib import Path

import workers.engine.admit

_SCRIPT = """
import importlib, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(f"workers.engine.admit.{name}")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - sys.stdlib_module_names))
"""


def test_admission_imports_nothing_but_the_standard_library_and_the_errors() -> None:
    folder = Path(workers.engine.admit.__file__).parent
    modules = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
    command = [sys.executable, "-c", _SCRIPT, *modules]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder.parents[2]).stdout
    assert len(modules) > 5
    assert loaded.split() == ["workers"]
