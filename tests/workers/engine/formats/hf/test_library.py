"""transformers comes alone."""

import subprocess
import sys

_CODE = """
import sys
from workers.engine.formats.hf.library import library
library().BertModel
print("scipy" in sys.modules)
import scipy
print(scipy.__name__)
"""


def test_transformers_comes_without_scipy_which_others_may_still_import() -> None:
    run = subprocess.run([sys.executable, "-c", _CODE], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "scipy"]
